import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Installation } from '../support/installation.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences, Truth } from '../support/truth.ts'
import { Random, Workload } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const RESTORER = join(import.meta.dirname, '../support/restore.py')

/** By a program that was written from docs/format.md alone, with the repository and its key file. */
function restoredIndependently({ data }: Installation, ms: number): string {
  const to = join(scratchDirectory(), 'restored')
  const key = join(data, 'keys/repository.key')
  execFileSync('python3', [RESTORER, key, join(data, 'repository'), 'pacs1', 'images', `${ms}`, to], { stdio: 'inherit' })
  return to
}

describe(`a random workload (PACSIMILE_SEED=${SEED})`, () => {
  it('can be restored at 20 random points, byte for byte, from the collector, from the bare repository, and by another program', async () => {
    const installation = await Installation.make()
    const source = join(installation.directory, 'source')
    installation.withoutBreaker()
    installation.startCollector()
    await installation.up()
    installation.enroll('pacs1', source)
    const random = new Random(SEED)
    const workload = new Workload(source, SEED)
    for (let i = 0; i < 60; i++) workload.step()
    installation.startAgent('pacs1')
    await installation.wait('pacs1')

    const truth = new Truth(source)
    for (let i = 0; i < 40; i++) {
      const steps = 1 + random.below(15)
      for (let step = 0; step < steps; step++) workload.step()
      await installation.wait('pacs1')
      truth.note()
      // A point includes all of its millisecond: the next change must not fall into it.
      await pause(2)
    }
    const replica = differences(truth.points.at(-1)?.copy ?? new Map(), walkTree(installation.replicaOf('pacs1')))
    expect(replica).toEqual([])

    const chosen = [...truth.points].sort(() => random.below(3) - 1).slice(0, 20)
    const restoreAt = (ms: number, ...from: string[]): void => {
      const to = join(scratchDirectory(), 'restored')
      installation.run('restore', 'pacs1:images', '--at', new Date(ms).toISOString(), '--to', to, ...from)
      const point = truth.points.find((candidate) => candidate.ms === ms)
      expect(differences(point?.copy ?? new Map(), walkTree(to))).toEqual([])
      rmSync(to, { recursive: true })
    }
    for (const { ms } of chosen.slice(0, 10)) restoreAt(ms, '--data', installation.data)
    await installation.kill('collector')
    for (const { ms } of chosen.slice(10)) restoreAt(ms, '--repository', join(installation.data, 'repository'))
    for (const { ms, copy } of chosen.slice(0, 3)) expect(differences(copy, walkTree(restoredIndependently(installation, ms)))).toEqual([])
    const check: unknown = installation.json('check', '--repository', join(installation.data, 'repository'))
    expect(check).toMatchObject({ whole: true, damage: [], affected: [] })
  })
})
