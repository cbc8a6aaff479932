/**
 * What the admin socket answers: the questions of the command line, checked before they are believed.
 */
import { z } from 'zod'
import { digestFromHex } from '../shared/digest.ts'
import { CHUNK_BYTES_MAX, PATH_BYTES_MAX } from '../shared/limits.ts'
import type { LocalRoute, LocalRoutes } from '../shared/local-api.ts'
import { type Label, label } from '../shared/path.ts'
import type { CatchUp } from './catch-up.ts'
import type { Copies } from './copies.ts'
import { NAMED } from './copy-definition.ts'
import type { History } from './history.ts'
import { historyQuestions, MOMENT, parse, VOLUME } from './history-questions.ts'
import { encodeChunks } from './history-wire.ts'
import type { Identity } from './identity.ts'
import type { Overview } from './overview.ts'
import { PASSWORD_HASH } from './password.ts'
import type { Pruning } from './pruning.ts'
import { mark, type ReachParts, wait } from './reach.ts'
import type { Replica } from './replica.ts'
import type { ReplicaControl } from './replica-control.ts'
import type { ScrubRounds } from './scrub-rounds.ts'

const name = z.string().transform((text) => label(text, 'The name'))
const count = z.number().int().nonnegative()

const MARK = z.object({ agent: name, volume: name, name, timeoutMs: count })
const REWIND = z.object({ agent: name, volume: name, at: MOMENT.optional() })
const BEGIN = z.object({ agent: name, volume: name, reason: z.string().max(1000) })
const END = z.object({ agent: name, volume: name, branch: z.string().regex(/^[0-9TZ]{1,40}$/) })
const EXPECT = z.object({ agent: name, volume: name, forMs: count.min(1), reason: z.string().min(1).max(1000) })
const CHUNKS = z.object({
  chunks: z.array(z.object({ digest: z.string().transform(digestFromHex), length: count.max(CHUNK_BYTES_MAX) })).max(65_536),
})
const PLACES = z.object({ chunks: z.array(z.string().transform(digestFromHex)).max(65_536) })
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
const PASSWORD = z.object({ name, password: PASSWORD_HASH.optional() })
const FILES = z.object({ files: z.array(z.object({ kind: z.enum(['pack', 'segment']), number: count.min(1) })) })
const COPY = z.object({ name })
const VERIFY = z.object({ name, repairs: z.boolean() })
const WAIT = z.object({ agent: name.optional(), volume: name.optional(), timeoutMs: count })

export interface AdminParts extends ReachParts {
  readonly identity: Identity
  readonly overview: Overview
  readonly copies: Copies
  readonly history: History
  readonly control: ReplicaControl
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
    ...historyRoutes(history),
    replicaDirectory(body) {
      const { agent, volume } = parse(VOLUME, body)
      return Promise.resolve({ directory: directoryOf(parts.replica, agent, volume) })
    },
    replicaResume(body) {
      const { agent, volume } = parse(VOLUME, body)
      return parts.control.resume(agent, volume)
    },
    replicaRewind(body, signal) {
      const { agent, volume, at } = parse(REWIND, body)
      return parts.control.rewind(agent, volume, at, signal)
    },
    replicaCheck(body, signal) {
      const { agent, volume } = parse(VOLUME, body)
      return parts.control.check(agent, volume, signal)
    },
    failoverStanding(body) {
      const { agent, volume } = parse(VOLUME, body)
      return Promise.resolve(parts.control.standing(agent, volume))
    },
    failoverBegin(body, signal) {
      const { agent, volume, reason } = parse(BEGIN, body)
      return parts.control.beginFailover(agent, volume, reason, signal)
    },
    failoverEnd(body, signal) {
      const { agent, volume, branch } = parse(END, body)
      return parts.control.endFailover(agent, volume, branch, signal)
    },
    replicaExpect(body) {
      const { agent, volume, ...expected } = parse(EXPECT, body)
      return parts.control.expect(agent, volume, expected)
    },
    mark: (body, signal) => mark(parts, parse(MARK, body), signal),
    chunks(body) {
      return encodeChunks(history.chunks(parse(CHUNKS, body).chunks))
    },
    places(body) {
      const { chunks } = parse(PLACES, body)
      return Promise.resolve(history.places(chunks).map((place) => place ?? null))
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
    async revokeRestorer(body) {
      parts.identity.revokeRestorer(parse(RELEASE, body).name)
      return {}
    },
    async restorerPassword(body) {
      const asked = parse(PASSWORD, body)
      parts.identity.restorers.setPassword(asked.name, asked.password)
      return {}
    },
    wait: (body, signal) => wait(parts, parse(WAIT, body), signal),
  }
}

/** Of the collector, its copies and its restorers themselves: who asks is answered without the catalog. */
const ANSWERED_ALWAYS = new Set(['status', 'copies', 'copyAdd', 'copyVerify', 'copyRemove', 'revokeRestorer', 'restorerPassword'])

/** The same, but what needs the whole catalog is refused while it is made. */
export function whenFolded(catchUp: CatchUp, routes: LocalRoutes): LocalRoutes {
  const guarded = Object.entries(routes).map(([asked, route]): [string, LocalRoute] => {
    if (ANSWERED_ALWAYS.has(asked)) return [asked, route]
    const guard: LocalRoute = (body, signal) => {
      catchUp.requireDone()
      return route(body, signal)
    }
    return [asked, guard]
  })
  return Object.fromEntries(guarded)
}

function directoryOf(replica: Replica | undefined, agent: Label, volume: Label): string | undefined {
  return replica?.isKept(agent, volume) === true ? replica.pathOf(agent, volume) : undefined
}

/** What the command line asks of the history, of any volume. */
function historyRoutes(history: History): LocalRoutes {
  return Object.fromEntries(
    Object.entries(historyQuestions(history)).map(([asked, question]) => [asked, (body) => question(body).answer()]),
  )
}
