import { chmodSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Installation } from '../support/installation.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'

const FILES = 8

describe('one damaged byte of the repository', () => {
  it('is named by check and restore with file and time; both exit with 3, and everything else is restored', async () => {
    const installation = await Installation.make()
    const source = join(installation.directory, 'source')
    installation.startCollector()
    await installation.up()
    installation.enroll('pacs1', source)
    mkdirSync(join(source, 'd'))
    for (let i = 0; i < FILES; i++) writeFileSync(join(source, 'd', `${i}.dcm`), Buffer.alloc(50_000, `content of ${i} `))
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    const before = Date.now()
    const truth = walkTree(source)
    await installation.kill('pacs1', 'SIGTERM')
    await installation.kill('collector', 'SIGTERM')

    const repository = join(installation.data, 'repository')
    const shelf = join(repository, 'packs/01')
    const pack = join(shelf, readdirSync(shelf)[0] ?? '')
    const { size } = statSync(pack)
    chmodSync(pack, 0o600)
    const at = Math.floor(size / 2)
    const flipped = (readFileSync(pack)[at] ?? 0) ^ 0x10
    writeSync(openSync(pack, 'r+'), Buffer.from([flipped]), 0, 1, at)

    const checked = installation.try('check', '--repository', repository, '--json')
    expect(checked.status).toBe(3)
    const report = JSON.parse(checked.stdout) as { whole: boolean; affected: { path: string; time: string; volume: string }[] }
    expect(report.whole).toBe(false)
    expect(report.affected).toHaveLength(1)
    const [hit] = report.affected
    expect(hit?.path).toMatch(/^d\/\d\.dcm$/)
    expect(Math.abs(Date.parse(hit?.time ?? '') - before)).toBeLessThan(60_000)
    expect(installation.try('check', '--repository', repository).stdout).toContain(`pacs1:images/${hit?.path}`)

    // Of a pack that is not full nothing can be repaired, and a catalog that is made now does not even know of the chunk.
    const scrubbed = installation.try('scrub', '--repository', repository, '--json')
    expect(scrubbed.status).toBe(3)
    expect(JSON.parse(scrubbed.stdout)).toMatchObject({ left: [{ file: pack }], superseded: [] })

    for (const [name, from] of [
      ['offline', ['--repository', repository]],
      ['online', ['--data', installation.data]],
    ] as const) {
      if (name === 'online') {
        // Where the replica has the file still, it is brought back from there.
        rmSync(join(installation.replicaOf('pacs1'), hit?.path ?? ''))
        installation.startCollector()
        await installation.up()
      }
      const to = join(installation.directory, name)
      const restored = installation.try('restore', 'pacs1:images', '--at', new Date(before).toISOString(), '--to', to, ...from)
      expect(restored.status, restored.stderr).toBe(3)
      expect(restored.stderr).toContain(hit?.path)
      const found = walkTree(to)
      expect(differences(truth, found)).toEqual([`${JSON.stringify(hit?.path)} is missing`])
    }
    // A file that is whole at that moment exits with 0, all the same.
    const other = Array.from({ length: FILES }, (_, i) => `d/${i}.dcm`).find((path) => path !== hit?.path) ?? ''
    expect(installation.run('cat', `pacs1:images/${other}`, '--data', installation.data).stdout.length).toBe(50_000)
    expect(installation.try('cat', `pacs1:images/${hit?.path}`, '--data', installation.data).status).toBe(3)
  })
})
