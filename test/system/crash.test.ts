import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Installation } from '../support/installation.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { Random, Workload } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const ROUNDS = 30

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe(`kill -9 at random moments (PACSIMILE_SEED=${SEED})`, () => {
  it(`loses nothing acknowledged in ${ROUNDS} rounds of agent and collector, and the replica is equal at the end`, async () => {
    const installation = await Installation.make()
    installation.withoutBreaker()
    const source = join(installation.directory, 'source')
    installation.startCollector()
    await installation.up()
    installation.enroll('pacs1', source)
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    const random = new Random(SEED)
    const workload = new Workload(source, SEED)
    const acknowledged: { seq: number; epoch: number }[] = []

    for (let round = 0; round < ROUNDS; round++) {
      const victim = ['pacs1', 'collector'][random.below(2)] ?? 'collector'
      const steps = 5 + random.below(30)
      const killAt = random.below(steps)
      for (let step = 0; step < steps; step++) {
        workload.step()
        if (step === killAt) await installation.kill(victim)
        if (random.below(4) === 0) await pause(random.below(30))
      }
      if (victim === 'collector') installation.startCollector()
      else installation.startAgent(victim)
      if (round % 5 === 4) {
        await installation.wait('pacs1')
        const status = installation.json('status', '--data', installation.data) as { agents: { acked: number; epoch: number }[] }
        const agent = status.agents[0]
        if (agent !== undefined) acknowledged.push({ seq: agent.acked, epoch: agent.epoch })
      }
    }
    await installation.wait('pacs1')
    expect(differences(walkTree(source), walkTree(installation.replicaOf('pacs1')))).toEqual([])
    // One epoch all the way: no crash of ours looked like a lost or forked journal.
    const epochs = installation
      .run('log', 'pacs1:images', '--data', installation.data)
      .stdout.split('\n')
      .filter((line) => line.includes(' begins: '))
    expect(epochs).toEqual(epochs.slice(0, 1))
    expect(acknowledged.map(({ seq }) => seq)).toEqual(acknowledged.map(({ seq }) => seq).sort((a, b) => a - b))

    const copy = walkTree(source)
    await installation.kill('pacs1')
    await installation.kill('collector')
    const repository = join(installation.data, 'repository')
    expect(installation.json('check', '--repository', repository)).toMatchObject({ whole: true, damage: [], affected: [] })
    const to = join(scratchDirectory(), 'restored')
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, '--repository', repository)
    expect(differences(copy, walkTree(to))).toEqual([])
    // What was acknowledged in any round is there.
    for (const { epoch, seq } of acknowledged)
      installation.run(
        'restore',
        'pacs1:images',
        '--at',
        `seq:${epoch}:${seq}`,
        '--to',
        join(scratchDirectory(), 'at'),
        '--dry-run',
        '--repository',
        repository,
      )
  })
})
