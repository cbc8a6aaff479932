/**
 * Waiting until an agent's changes are here, and marking the moment at which they are.
 *
 * Invariant: what is answered was proven by the agent after the question came. It prevents a script that asks "is everything
 * safe?" before an upgrade from being told of the state of a second ago.
 */
import type { HybridTime } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { type Label, showPath } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import type { EnrolledAgents } from './enrolled-agents.ts'
import type { Receiver } from './receiver.ts'
import type { Replica } from './replica.ts'

export interface ReachParts {
  readonly receiver: Receiver
  readonly catalog: Catalog
  readonly enrolled: EnrolledAgents
  readonly replica: Replica | undefined
}

export interface WaitRequest {
  /** All that are enrolled without it. */
  readonly agent?: Label | undefined
  /** All of the agent without it. */
  readonly volume?: Label | undefined
  readonly timeoutMs: number
}

export interface MarkRequest {
  readonly agent: Label
  readonly volume: Label
  readonly name: Label
  readonly timeoutMs: number
}

/** The longest time that a timer takes: 24 days. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1

interface Reached extends Position {
  readonly agent: Label
}

/** Resolves when everything that changed before the call is durable here and in the replica. @throws timeout, agent-unreachable, incomplete, replica-stopped */
export async function wait(parts: ReachParts, asked: WaitRequest, signal: AbortSignal): Promise<{ agents: Reached[] }> {
  if (asked.agent !== undefined) requireEnrolled(parts, asked.agent)
  const agents = asked.agent === undefined ? parts.enrolled.names() : [asked.agent]
  if (agents.length === 0) throw new PacsimileError('not-found', 'No agent is enrolled yet')
  const deadline = AbortSignal.timeout(Math.min(asked.timeoutMs, TIMEOUT_MS_MAX))
  const either = AbortSignal.any([signal, deadline])
  return { agents: await Promise.all(agents.map((agent) => waitFor(parts, agent, asked.volume ?? '', either, asked.timeoutMs))) }
}

/** Those that may connect: an agent that is enrolled and has sent nothing yet is waited for, one that was revoked is not. */
function requireEnrolled({ enrolled }: ReachParts, agent: Label): void {
  const known = enrolled.names()
  if (!known.includes(agent))
    throw new PacsimileError('not-found', `There is no agent ${agent}; known: ${known.length === 0 ? 'none' : known.join(', ')}`)
}

/**
 * Has the agent journal a mark behind everything that changed before the call; resolves when that is durable here. It is not asked for
 * twice: where the session ends under it, the mark may have been set.
 * @throws timeout, agent-unreachable, incomplete, version-refused where the agent is of a release that knows no marks
 */
export async function mark(parts: ReachParts, asked: MarkRequest, signal: AbortSignal): Promise<Position & { readonly time: HybridTime }> {
  const { agent, volume, name, timeoutMs } = asked
  requireEnrolled(parts, agent)
  const deadline = AbortSignal.timeout(Math.min(timeoutMs, TIMEOUT_MS_MAX))
  const either = AbortSignal.any([signal, deadline])
  try {
    const position = await untilAborted(barrier(parts, agent, volume, either, name), either)
    await untilDurable(parts, agent, position, either)
    const record = parts.catalog.summary(agent, position)
    if (record?.kind === 'mark' && record.name === name) return { ...position, time: record.time }
  } catch (error) {
    if (!deadline.aborted) throw error
    throw new PacsimileError('timeout', `${agent}:${volume} has no such mark after ${timeoutMs / 1000} s: ${lastWord(parts, agent)}`, {
      cause: error,
    })
  }
  throw new PacsimileError('version-refused', `Agent ${agent} is of a release that sets no marks; nothing was marked. Update it`)
}

async function waitFor(parts: ReachParts, agent: Label, volume: string, signal: AbortSignal, timeoutMs: number): Promise<Reached> {
  for (;;) {
    try {
      const position = await untilAborted(barrier(parts, agent, volume, signal), signal)
      await follow(parts, agent, volume, position, signal)
      await requireWholeReplica(parts, agent, volume)
      return { agent, epoch: position.epoch, seq: position.seq }
    } catch (error) {
      if (signal.aborted)
        throw new PacsimileError(
          'timeout',
          `${agent}${volume === '' ? '' : `:${volume}`} did not get there within ${timeoutMs / 1000} s: ${lastWord(parts, agent)}`,
          { cause: error },
        )
      // The session ended under the question; the agent comes back, and the question is asked anew.
      if (!(error instanceof PacsimileError && error.code === 'agent-unreachable')) throw error
      await pause(signal)
    }
  }
}

function lastWord(parts: ReachParts, agent: Label): string {
  const session = parts.receiver.session(agent)
  if (session === undefined) return 'the agent is not connected'
  const end = parts.catalog.chainEnd(agent)
  return `the agent is connected, acknowledged up to seq ${end?.seq ?? 0}, replica at ${parts.replica?.applied(agent).seq ?? 0}`
}

function barrier(parts: ReachParts, agent: Label, volume: string, signal: AbortSignal, name?: Label): Promise<Position> {
  const session = parts.receiver.session(agent)
  if (session?.isReady !== true || signal.aborted) throw new PacsimileError('agent-unreachable', `Agent ${agent} is not connected`)
  return session.barrier(volume, name)
}

/** Resolves when the position is durable, and in the replica where there is one. */
async function follow(parts: ReachParts, agent: Label, volume: string, position: Position, signal: AbortSignal): Promise<void> {
  await untilDurable(parts, agent, position, signal)
  const { replica } = parts
  if (replica === undefined) return
  const volumes = (await parts.catalog.volumes(agent)).map(({ name }) => name).filter((name) => volume === '' || volume === name)
  while (!isFollowing(replica, agent, volumes) || comparePositions(replica.applied(agent), position) < 0) {
    signal.throwIfAborted()
    await replica.progress.next(100, signal)
  }
  // It may have been stopped by what was waited for.
  isFollowing(replica, agent, volumes)
}

/** False while one is on its way to where the others are. @throws replica-stopped where one was stopped until somebody decides */
function isFollowing(replica: Replica, agent: Label, volumes: readonly Label[]): boolean {
  let isAll = true
  for (const volume of volumes) {
    const { stop } = replica.standing(agent, volume)
    if (stop === undefined || stop.phase === 'off') continue
    if (stop.phase !== 'catching-up' && stop.phase !== 'checking' && stop.isDrift !== true)
      throw new PacsimileError('replica-stopped', `The replica of ${agent}:${volume} is ${stop.phase}: ${stop.reason}`)
    isAll = false
  }
  return isAll
}

async function untilDurable({ catalog }: ReachParts, agent: Label, position: Position, signal: AbortSignal): Promise<void> {
  for (let end = catalog.chainEnd(agent); end === undefined || comparePositions(end, position) < 0; end = catalog.chainEnd(agent)) {
    signal.throwIfAborted()
    await pause(signal)
  }
}

/** @throws incomplete when there are paths that the replica could not be given */
async function requireWholeReplica(parts: ReachParts, agent: Label, volume: string): Promise<void> {
  for (const { name: of } of await parts.catalog.volumes(agent)) {
    const problems = volume === '' || volume === of ? parts.replica?.problems(agent, of) : undefined
    const [first] = problems ?? []
    if (problems === undefined || first === undefined) continue
    const [path, reason] = first
    throw new PacsimileError(
      'incomplete',
      `Everything is durable, but ${problems.size} of ${agent}:${of} could not be brought into the replica, among them ${showPath(path)}: ${reason}`,
    )
  }
}

function untilAborted<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'))
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop))
  })
}

function pause(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, 50)
    signal.addEventListener('abort', done, { once: true })
  })
}
