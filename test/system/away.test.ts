import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Installation } from '../support/installation.ts'

const NAMES = ['a.dcm', 'deep/er/b.dcm', 'caf\u00e9.dcm']
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

interface Logged {
  readonly op: string
  readonly seq: number
  readonly path?: string
  readonly version?: { readonly size?: number }
}

function logOf(installation: Installation, path: string): Logged[] {
  const { stdout } = installation.run('log', `pacs1:images/${path}`, '--data', installation.data, '--json')
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line): Logged => JSON.parse(line))
}

describe('while the collector is away', () => {
  it('every version is kept, in order, although it is overwritten or deleted meanwhile, and across a restart of the agent', async () => {
    const installation = await Installation.make()
    const source = join(installation.directory, 'source')
    installation.startCollector()
    await installation.up()
    installation.enroll('pacs1', source)
    mkdirSync(join(source, 'deep/er'), { recursive: true })
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    await installation.kill('collector')

    const contents = [1, 2, 3].map((version) => NAMES.map((name) => Buffer.from(`${name} version ${version} `.repeat(5000 * version))))
    for (const [version, files] of contents.entries()) {
      for (const [i, name] of NAMES.entries()) writeFileSync(join(source, name), files[i] ?? '')
      // Captured, not only noticed: that is what the agent's own pending count and queue say.
      await until(() => {
        const status = statusOf(installation)
        return status.dirty === 0 && status.pending >= (version + 1) * NAMES.length
      })
      if (version === 1) {
        await installation.kill('pacs1', version === 1 ? 'SIGKILL' : 'SIGTERM')
        installation.startAgent('pacs1')
        await until(() => statusOf(installation).dirty === 0)
        await pause(1500)
      }
    }
    rmSync(join(source, 'a.dcm'))
    await until(() => statusOf(installation).dirty === 0)

    installation.startCollector()
    await installation.wait('pacs1')
    for (const [i, name] of NAMES.entries()) {
      const puts = logOf(installation, name).filter((entry) => entry.op === 'put')
      const sizes = puts.map((entry) => entry.version?.size)
      expect(sizes.filter((size, at) => size !== sizes[at - 1])).toEqual(contents.map((files) => files[i]?.length))
      for (const [version, files] of contents.entries()) {
        const put = puts.findLast((entry) => entry.version?.size === files[i]?.length)
        const to = join(installation.directory, `out-${i}-${version}`)
        installation.run('restore', `pacs1:images/${name}`, '--at', `seq:${put?.seq}`, '--to', to, '--data', installation.data)
        expect(readFileSync(join(to, name.split('/').at(-1) ?? '')).equals(files[i] ?? Buffer.alloc(0))).toBe(true)
      }
    }
    expect(logOf(installation, 'a.dcm').at(-1)?.op).toBe('remove')
  })
})

function statusOf(installation: Installation): { dirty: number; pending: number } {
  const outcome = installation.try('agent', 'status', '--state', installation.stateOf('pacs1'), '--json')
  return outcome.status === 0 ? JSON.parse(outcome.stdout) : { dirty: -1, pending: -1 }
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('it did not come about within 30 s')
    await pause(50)
  }
}
