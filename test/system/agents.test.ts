import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Installation } from '../support/installation.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { Workload } from '../support/workload.ts'

const AGENTS = ['pacs1', 'pacs2', 'pacs3']

describe('several agents at once', () => {
  it('each have their own history and replica, also with the same volume name and the same content', async () => {
    const installation = await Installation.make()
    installation.withoutBreaker()
    installation.startCollector()
    await installation.up()
    const sources = new Map(AGENTS.map((agent) => [agent, join(installation.directory, `source-${agent}`)]))
    for (const [agent, source] of sources) installation.enroll(agent, source)
    // Two of them see the same changes.
    const workloads = Array.from(sources, ([agent, source]) => new Workload(source, agent === 'pacs3' ? 3 : 1))
    for (const agent of AGENTS) installation.startAgent(agent)
    for (let step = 0; step < 120; step++) for (const workload of workloads) workload.step()
    await installation.until('wait', '--data', installation.data, '--timeout', '50s')
    const status = installation.json('status', '--data', installation.data) as { agents: { name: string; connected: boolean }[] }
    expect(status.agents.map(({ name, connected }) => `${name} ${connected}`)).toEqual(AGENTS.map((agent) => `${agent} true`))
    for (const [agent, source] of sources) expect(differences(walkTree(source), walkTree(installation.replicaOf(agent))), agent).toEqual([])
    expect(
      installation.try(
        'agent',
        'enroll',
        '--collector',
        `wss://127.0.0.1:${installation.port}`,
        '--token',
        'pacsimile1.wrong',
        '--name',
        'x',
        '--state',
        join(installation.directory, 'x'),
        '--volume',
        'v=/tmp',
      ).status,
    ).toBe(6)
  })
})
