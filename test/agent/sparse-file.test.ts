import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { describe, expect, it, onTestFinished } from 'vitest'
import { digestOf } from '../../shared/digest.ts'
import { holesOf } from '../../shared/version-extensions.ts'
import { CaptureSite, contentOf, fileOf } from '../support/capture-site.ts'
import { loopFilesystem } from '../support/loop-filesystem.ts'

const MB = 1 << 20

/** Data at the given offsets, a block each, in a file of the given size. */
function sparse(path: string, size: number, offsets: readonly number[]): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, size)
  for (const offset of offsets) writeSync(fd, Buffer.alloc(4096, 1 + (offset % 251)), 0, 4096, offset)
  closeSync(fd)
}

describe('holes', () => {
  for (const size of [MB, 20 * MB]) {
    it(`of a file of ${size} bytes are recorded, and its content is the same bytes`, async () => {
      const site = new CaptureSite()
      sparse(site.file('f'), size, [8192, MB / 2])
      const captured = await site.look('f')
      const version = fileOf(captured)
      expect(version).toMatchObject({ consistency: 'stable', size, digest: digestOf(readFileSync(site.file('f'))) })
      expect(contentOf(captured).equals(readFileSync(site.file('f')))).toBe(true)
      expect(holesOf(version)).toEqual([
        { offset: 0, length: 8192 },
        { offset: 12_288, length: MB / 2 - 12_288 },
        { offset: MB / 2 + 4096, length: size - MB / 2 - 4096 },
      ])
    })
  }

  it('are none where nothing is missing, and the whole of a file without data', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('full'), Buffer.alloc(MB))
    sparse(site.file('empty'), MB, [])
    expect(fileOf(await site.look('full')).extensions).toBeUndefined()
    expect(holesOf(fileOf(await site.look('empty')))).toEqual([{ offset: 0, length: MB }])
  })

  it('of a file that is open for writing are named if they were read as zeros', async () => {
    const site = new CaptureSite()
    sparse(site.file('f'), MB, [8192])
    const fd = openSync(site.file('f'), 'r+')
    onTestFinished(() => closeSync(fd))
    const captured = await site.look('f', { asIs: true })
    expect(fileOf(captured).consistency).toBe('unverified')
    expect(holesOf(fileOf(captured))).toHaveLength(2)
    expect(contentOf(captured).equals(readFileSync(site.file('f')))).toBe(true)
  })
})

describe.skipIf(process.getuid?.() !== 0)('a filesystem with reflinks', () => {
  for (const kind of ['xfs', 'btrfs'] as const) {
    it(`gives a file that is open for writing as it is at one moment (${kind})`, async () => {
      const site = new CaptureSite(loopFilesystem(kind))
      mkdirSync(site.file('d'))
      for (const [name, size] of [
        ['small', 100_000],
        ['large', 20 * MB],
      ] as const) {
        const content = Buffer.alloc(size, 'content of some kind; ')
        writeFileSync(site.file(`d/${name}`), content)
        const fd = openSync(site.file(`d/${name}`), 'r+')
        onTestFinished(() => closeSync(fd))
        expect((await site.look(`d/${name}`)).outcome).toEqual({ kind: 'busy' })
        const captured = await site.look(`d/${name}`, { asIs: true })
        expect(fileOf(captured)).toMatchObject({ consistency: 'crash-consistent', size })
        expect(contentOf(captured).equals(content)).toBe(true)
      }
      expect(readdirSync(site.directory)).toEqual(['d'])
    })
  }

  it('keeps the holes, and a large file that nobody writes is stable', async () => {
    const site = new CaptureSite(loopFilesystem('xfs'))
    sparse(site.file('f'), 20 * MB, [MB])
    expect(spawnSync('sync', ['-f', site.directory]).status).toBe(0)
    const version = fileOf(await site.look('f'))
    expect(version.consistency).toBe('stable')
    expect(holesOf(version)).toHaveLength(2)
  })
})
