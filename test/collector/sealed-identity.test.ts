import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { keepSealedIdentity, restoreIdentity, SEALED_NAME } from '../../collector/sealed-identity.ts'
import { silentLog } from '../../shared/log.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { until } from '../support/until.ts'

const ID = '0123456789abcdef'.repeat(2)
const KEYS = ['ca.key', 'ca.crt', 'server.key', 'server.crt']

function made(): { dataDir: string; repository: { id: string; directory: string }; dataKey: Buffer; log: typeof silentLog } {
  const dataDir = scratchDirectory()
  const directory = join(dataDir, 'repository')
  for (const name of ['keys', 'agents', 'repository']) mkdirSync(join(dataDir, name))
  for (const name of KEYS) writeFileSync(join(dataDir, 'keys', name), `content of ${name}`)
  return { dataDir, repository: { id: ID, directory }, dataKey: randomBytes(32), log: silentLog }
}

describe('the sealed identity', () => {
  it('follows what is enrolled, and gives it back to a new data directory', async () => {
    const parts = made()
    const stop = new AbortController()
    const keeping = keepSealedIdentity(parts, stop.signal)
    const target = (): ReturnType<typeof made> => ({ ...made(), repository: parts.repository, dataKey: parts.dataKey })
    const agents = (): string | undefined => {
      const to = target()
      restoreIdentity(to)
      try {
        return readFileSync(join(to.dataDir, 'agents/pacs1.json'), 'utf8')
      } catch {
        return undefined
      }
    }
    await until('it is sealed', 10, () => restoreIdentity(target()) || undefined)
    expect(agents()).toBeUndefined()
    writeFileSync(join(parts.dataDir, 'agents/pacs1.json'), '{"version":1}')
    expect(await until('it follows', 10, agents)).toBe('{"version":1}')
    // A restorer, and when it was last here, which is nobody's to keep.
    mkdirSync(join(parts.dataDir, 'restorers'))
    writeFileSync(join(parts.dataDir, 'restorers/radiology.used'), '')
    writeFileSync(join(parts.dataDir, 'restorers/radiology.json'), '{"version":1,"revoked":""}')
    const restorers = (): string[] | undefined => {
      const to = target()
      restoreIdentity(to)
      const found = readdirSync(join(to.dataDir, 'restorers'))
      return found.length === 0 ? undefined : found
    }
    expect(await until('it follows restorers', 10, restorers)).toEqual(['radiology.json'])
    const to = target()
    restoreIdentity(to)
    for (const name of KEYS) expect(readFileSync(join(to.dataDir, 'keys', name), 'utf8')).toBe(`content of ${name}`)
    stop.abort()
    await keeping
    const sealed = readFileSync(join(parts.repository.directory, SEALED_NAME))
    expect(sealed.includes('content of ca.key')).toBe(false)
  })

  it('opens with no other key, in no other repository, and not when it is damaged', async () => {
    const parts = made()
    expect(restoreIdentity(parts)).toBe(false)
    const running = new AbortController()
    const keeping = keepSealedIdentity(parts, running.signal)
    running.abort()
    await keeping
    expect(restoreIdentity(parts)).toBe(true)
    expect(() => restoreIdentity({ ...parts, dataKey: randomBytes(32) })).toThrow('does not open')
    expect(() => restoreIdentity({ ...parts, repository: { ...parts.repository, id: 'f'.repeat(32) } })).toThrow('does not open')
    const file = join(parts.repository.directory, SEALED_NAME)
    const bytes = readFileSync(file)
    bytes.writeUInt8(bytes.readUInt8(40) ^ 1, 40)
    writeFileSync(file, bytes)
    expect(() => restoreIdentity(parts)).toThrow('does not open')
  })
})
