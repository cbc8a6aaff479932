/**
 * The beginning of a session: hello, welcome, and whether this journal goes on from where the collector stands.
 *
 * Invariant: a session begins only at a position at which both sides have the same hash. It prevents an agent whose state was
 * copied, set back or damaged from continuing, or overwriting, a history that is not its own: a new epoch begins instead.
 */
import type { HybridClock } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { Link } from '../shared/link.ts'
import type { Label } from '../shared/path.ts'
import type { EpochReason } from '../shared/record.ts'
import { type Message, PROTOCOL_MAJOR, PROTOCOL_MINOR } from '../shared/wire.ts'
import type { Journal } from './journal.ts'

export type WelcomeMessage = Extract<Message, { kind: 'welcome' }>
type RefuseMessage = Extract<Message, { kind: 'refuse' }>

/** This journal cannot go on: a new epoch above `above` is to begin, with a full scan. */
export class EpochOver extends Error {
  readonly reason: EpochReason
  readonly above: number

  constructor(reason: EpochReason, above: number, message: string) {
    super(message)
    this.reason = reason
    this.above = above
  }
}

/** @throws EpochOver, not-trusted, version-refused, protocol */
export async function greet(
  link: Link,
  parts: { readonly agent: Label; readonly journal: Journal; readonly clock: HybridClock },
): Promise<WelcomeMessage> {
  const { agent, journal, clock } = parts
  const { epoch, seq, hash } = journal.head
  const head = { epoch, seq, hash }
  await link.send({ kind: 'hello', major: PROTOCOL_MAJOR, minor: PROTOCOL_MINOR, agent, head, oldest: journal.oldest, time: clock.tick() })
  const answer = await link.receive()
  if (answer === undefined) throw link.ended ?? new PacsimileError('protocol', 'The collector ended the session')
  if (answer.kind === 'refuse') throw refusal(answer, epoch)
  if (answer.kind !== 'welcome') throw new PacsimileError('protocol', `The collector answered hello with ${answer.kind}`)
  await checkWelcome(answer, journal)
  return answer
}

/** What a refusal means for an agent in this epoch. */
export function refusal({ code, message, lastEpoch }: RefuseMessage, epoch: number): Error {
  if (code === 'forked') return new EpochOver(lastEpoch > epoch ? 'rewound' : 'forked', Math.max(epoch, lastEpoch), message)
  if (code === 'version-refused' || code === 'not-trusted') return new PacsimileError(code, `The collector refuses this agent: ${message}`)
  return new PacsimileError('protocol', `The collector ended the session (${code}): ${message}`)
}

async function checkWelcome({ acked, lastEpoch }: WelcomeMessage, journal: Journal): Promise<void> {
  const { epoch, head, oldest } = journal
  if (lastEpoch > epoch) throw new EpochOver('rewound', lastEpoch, `the collector holds epoch ${lastEpoch}, this journal is at ${epoch}`)
  if (acked.epoch !== epoch) throw new PacsimileError('protocol', `The collector continues epoch ${acked.epoch}, not ${epoch}`)
  if (acked.seq > head.seq)
    throw new EpochOver('rewound', epoch, `the collector holds ${acked.seq} records of this epoch, this journal ${head.seq}`)
  if (acked.seq < oldest - 1) throw new EpochOver('forked', epoch, `the collector ends at ${acked.seq}, this journal begins at ${oldest}`)
  if ((await journal.hashAt(acked.seq)) !== acked.hash)
    throw new EpochOver('forked', epoch, `the collector holds another record ${acked.seq}`)
}
