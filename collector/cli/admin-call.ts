/**
 * Questions to the running collector of a data directory, by name: what is asked here must be answered in admin.ts.
 *
 * Answers are taken at their word: both ends of the socket are of one release. A collector of another one refuses a
 * question that it does not know.
 */
import { join } from 'node:path'
import { PacsimileError } from '../../shared/errors.ts'
import { callLocal } from '../../shared/local-api.ts'

type Question =
  | 'status'
  | 'volumes'
  | 'wait'
  | 'mark'
  | 'prunePlan'
  | 'prune'
  | 'holds'
  | 'hold'
  | 'release'
  | 'scrub'
  | 'copies'
  | 'copyAdd'
  | 'copyRemove'
  | 'copyVerify'
  | 'replicaResume'
  | 'replicaRewind'
  | 'replicaExpect'
  | 'replicaCheck'
  | 'failoverStanding'
  | 'failoverBegin'
  | 'failoverEnd'
  | 'revokeRestorer'
  | 'restorerPassword'

/** @throws collector-unreachable, or what the collector throws */
export function askCollector(data: string, question: Question, body: object): Promise<unknown> {
  return callLocal(join(data, 'admin.sock'), question, body, { unreachable: 'collector-unreachable' })
}

/** An agent that has sent nothing yet has no volumes that could be told. @throws not-found */
export async function expectVolume(data: string, agent: string, volume: string): Promise<void> {
  const all = (await askCollector(data, 'volumes', {})) as { agent: string; volume: string }[]
  const known = all.filter((name) => name.agent === agent).map((name) => name.volume)
  if (known.length > 0 && !known.includes(volume))
    throw new PacsimileError('not-found', `Agent ${agent} has no volume ${volume}; known: ${known.join(', ')}`)
}
