/**
 * What the admin socket answers: the questions of the command line, checked before they are believed.
 */
import { z } from 'zod'
import { digestFromHex } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import { CHUNK_BYTES_MAX, PATH_BYTES_MAX } from '../shared/limits.ts'
import type { LocalRoutes } from '../shared/local-api.ts'
import { type Label, label, relativePath, showPath } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import type { Copies } from './copies.ts'
import { NAMED } from './copy-definition.ts'
import type { EnrolledAgents } from './enrolled-agents.ts'
import type { HistorySource } from './history-source.ts'
import { encodeChunks, encodeEntries, encodeLog } from './history-wire.ts'
import type { Overview } from './overview.ts'
import type { PointRequest } from './point.ts'
import type { Pruning } from './pruning.ts'
import type { Receiver } from './receiver.ts'
import type { Replica } from './replica.ts'
import type { ScrubRounds } from './scrub-rounds.ts'

const name = z.string().transform((text) => label(text, 'The name'))
const path = z.string().transform((text) => relativePath(text))
const count = z.number().int().nonnegative()
const position = z.object({ epoch: count, seq: count })
const moment = z
  .discriminatedUnion('kind', [
    z.object({ kind: z.literal('head') }),
    z.object({ kind: z.literal('time'), ms: z.number() }),
    z.object({ kind: z.literal('seq'), epoch: count.optional(), seq: count }),
  ])
  .transform((at): PointRequest => (at.kind === 'seq' ? { kind: 'seq', epoch: at.epoch, seq: at.seq } : at))

const POINT = z.object({ agent: name, volume: name, at: moment })
const TREE = z.object({ agent: name, volume: name, path, at: position })
const LOG = z.object({ agent: name, volume: name, path, from: moment.optional(), until: moment.optional() })
const WINDOW = z.object({ agent: name, volume: name })
const CHUNKS = z.object({
  chunks: z.array(z.object({ digest: z.string().transform(digestFromHex), length: count.max(CHUNK_BYTES_MAX) })).max(65_536),
})
const HOLD = z.object({
  name,
  agent: name,
  volume: name,
  pattern: z.string().max(PATH_BYTES_MAX),
  fromMs: count.optional(),
  untilMs: count.optional(),
})
const PRUNE = z.object({ isDespiteDoubts: z.boolean() })
const RELEASE = z.object({ name })
const FILES = z.object({ files: z.array(z.object({ kind: z.enum(['pack', 'segment']), number: count.min(1) })) })
const COPY = z.object({ name })
const VERIFY = z.object({ name, repairs: z.boolean() })
const WAIT = z.object({ agent: name.optional(), volume: name.optional(), timeoutMs: count })

export interface AdminParts {
  readonly overview: Overview
  readonly copies: Copies
  readonly history: HistorySource
  readonly receiver: Receiver
  readonly catalog: Catalog
  readonly enrolled: EnrolledAgents
  readonly replica: Replica | undefined
  readonly prune: Pruning
  /** Undefined where scrubbing is switched off. */
  readonly scrub: ScrubRounds | undefined
}

export function adminRoutes(parts: AdminParts): LocalRoutes {
  const { history } = parts
  return {
    status: () => parts.overview.report(),
    copies: () => Promise.resolve(parts.copies.status),
    async copyAdd(body) {
      await parts.copies.add(parse(NAMED, body))
      return {}
    },
    copyVerify(body, signal) {
      const asked = parse(VERIFY, body)
      return parts.copies.verify(asked.name, asked.repairs, signal)
    },
    async copyRemove(body) {
      await parts.copies.remove(parse(COPY, body).name)
      return {}
    },
    volumes: () => history.volumes(),
    damage: () => Promise.resolve(history.damage),
    point(body) {
      const { agent, volume, at } = parse(POINT, body)
      return history.point(agent, volume, at)
    },
    window(body) {
      const { agent, volume } = parse(WINDOW, body)
      return history.window(agent, volume)
    },
    tree(body) {
      const asked = parse(TREE, body)
      return encodeEntries(history.tree(asked.agent, asked.volume, asked.path, asked.at))
    },
    async lastWhole(body) {
      const asked = parse(TREE, body)
      return { time: await history.lastWhole(asked.agent, asked.volume, asked.path, asked.at) }
    },
    log(body) {
      const asked = parse(LOG, body)
      return encodeLog(history.log(asked.agent, asked.volume, { path: asked.path, from: asked.from, until: asked.until }))
    },
    chunks(body) {
      return encodeChunks(history.chunks(parse(CHUNKS, body).chunks))
    },
    async scrub(body, signal) {
      await parts.scrub?.scrub(parse(FILES, body).files, signal)
      return {}
    },
    prunePlan: () => parts.prune.plan(),
    prune: (body) => parts.prune.run({ isDespiteDoubts: parse(PRUNE, body).isDespiteDoubts }),
    holds: () => parts.prune.holds(),
    async hold(body) {
      const { fromMs, untilMs, ...hold } = parse(HOLD, body)
      await parts.prune.hold({ ...hold, fromMs, untilMs })
    },
    release: (body) => parts.prune.release(parse(RELEASE, body).name),
    wait: (body, signal) => wait(parts, parse(WAIT, body), signal),
  }
}

function parse<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const checked = schema.safeParse(body)
  if (checked.success) return checked.data
  throw new PacsimileError(
    'usage',
    `The request is malformed: ${checked.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`,
  )
}

/** The longest time that a timer takes: 24 days. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1

interface Reached extends Position {
  readonly agent: Label
}

/** Resolves when everything that changed before the call is durable here and in the replica. @throws timeout, agent-unreachable, incomplete */
async function wait(parts: AdminParts, asked: z.output<typeof WAIT>, signal: AbortSignal): Promise<{ agents: Reached[] }> {
  // Those that may connect: an agent that is enrolled and has sent nothing yet is waited for, one that was revoked is not.
  const known = parts.enrolled.names()
  if (asked.agent !== undefined && !known.includes(asked.agent)) {
    throw new PacsimileError('not-found', `There is no agent ${asked.agent}; known: ${known.length === 0 ? 'none' : known.join(', ')}`)
  }
  const agents = asked.agent === undefined ? known : [asked.agent]
  if (agents.length === 0) throw new PacsimileError('not-found', 'No agent is enrolled yet')
  const deadline = AbortSignal.timeout(Math.min(asked.timeoutMs, TIMEOUT_MS_MAX))
  const either = AbortSignal.any([signal, deadline])
  return { agents: await Promise.all(agents.map((agent) => waitFor(parts, agent, asked.volume ?? '', either, asked.timeoutMs))) }
}

async function waitFor(parts: AdminParts, agent: Label, volume: string, signal: AbortSignal, timeoutMs: number): Promise<Reached> {
  for (;;) {
    try {
      const position = await untilAborted(barrier(parts, agent, volume, signal), signal)
      await follow(parts, agent, position, signal)
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

function lastWord(parts: AdminParts, agent: Label): string {
  const session = parts.receiver.session(agent)
  if (session === undefined) return 'the agent is not connected'
  const end = parts.catalog.chainEnd(agent)
  return `the agent is connected, acknowledged up to seq ${end?.seq ?? 0}, replica at ${parts.replica?.applied(agent).seq ?? 0}`
}

function barrier(parts: AdminParts, agent: Label, volume: string, signal: AbortSignal): Promise<Position> {
  const session = parts.receiver.session(agent)
  if (session?.isReady !== true || signal.aborted) throw new PacsimileError('agent-unreachable', `Agent ${agent} is not connected`)
  return session.barrier(volume)
}

/** Resolves when the position is durable, and in the replica where there is one. */
async function follow(parts: AdminParts, agent: Label, position: Position, signal: AbortSignal): Promise<void> {
  const reached = (): boolean => {
    const end = parts.catalog.chainEnd(agent)
    return (
      end !== undefined &&
      comparePositions(end, position) >= 0 &&
      (parts.replica === undefined || comparePositions(parts.replica.applied(agent), position) >= 0)
    )
  }
  while (!reached()) {
    signal.throwIfAborted()
    if (parts.replica === undefined) await pause(signal)
    else await parts.replica.progress.next(100, signal)
  }
}

/** @throws incomplete when there are paths that the replica could not be given */
async function requireWholeReplica(parts: AdminParts, agent: Label, volume: string): Promise<void> {
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
