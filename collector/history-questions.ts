/**
 * The questions that are asked of a history, by name, checked before they are believed: on the admin socket and by restorers.
 *
 * Invariant: a question says of which volume it is before it is answered, so that whoever answers can refuse it; and no part of one
 * ever names a file of this host. It prevents a route that forgets to ask who may know.
 */
import { z } from 'zod'
import { PacsimileError } from '../shared/errors.ts'
import { label, type RelativePath, relativePath } from '../shared/path.ts'
import type { Allowance, Place } from './allowance.ts'
import type { History } from './history.ts'
import { encodeEntries, encodeLog } from './history-wire.ts'
import type { PointRequest } from './point.ts'

/** What may be said of a question in a log. */
export interface About extends Place {
  readonly path?: RelativePath | undefined
  /** As JSON. */
  readonly at?: unknown
}

export interface Question {
  /** Undefined: of the collector as a whole. */
  readonly about: About | undefined
  /** Of what is not of one volume, what the allowance leaves; all of it without one. */
  readonly answer: (allowance?: Allowance) => Promise<unknown> | AsyncIterable<Uint8Array>
}

/** Takes the JSON of a request. @throws usage, format-invalid */
export type Questions = Readonly<Record<string, (body: unknown) => Question>>

/** The range of Date. */
const MS_MAX = 8.64e15

const name = z.string().transform((text) => label(text, 'The name'))
/** One character, up to U+00FF, for each byte. */
export const PATH = z
  .string()
  .regex(/^[\0-\xff]*$/, 'a character is no byte')
  .transform((text) => relativePath(text))
const count = z.number().int().nonnegative()
export const POSITION = z.object({ epoch: count, seq: count })
export const MOMENT = z
  .discriminatedUnion('kind', [
    z.object({ kind: z.literal('head') }),
    z.object({ kind: z.literal('time'), ms: z.number().min(-MS_MAX).max(MS_MAX) }),
    z.object({ kind: z.literal('seq'), epoch: count.optional(), seq: count }),
    z.object({ kind: z.literal('mark'), name: z.string() }),
  ])
  .transform((at): PointRequest => (at.kind === 'seq' ? { kind: 'seq', epoch: at.epoch, seq: at.seq } : at))

export const VOLUME = z.object({ agent: name, volume: name })
const POINT = VOLUME.extend({ at: MOMENT })
const TREE = VOLUME.extend({ path: PATH, at: POSITION, depth: z.enum(['all', 'directory']).optional() })
const LOG = VOLUME.extend({ path: PATH, from: MOMENT.optional(), until: MOMENT.optional() })
const VERSIONS = VOLUME.extend({ path: PATH })

export function historyQuestions(history: History): Questions {
  return {
    volumes: () => ({
      about: undefined,
      answer: async (allowance) => (await history.volumes()).filter((place) => allowance?.has(place) !== false),
    }),
    damage: () => ({ about: undefined, answer: () => Promise.resolve(history.damage) }),
    point(body) {
      const about = parse(POINT, body)
      return { about, answer: () => history.point(about.agent, about.volume, about.at) }
    },
    window(body) {
      const about = parse(VOLUME, body)
      return { about, answer: () => history.window(about.agent, about.volume) }
    },
    tree(body) {
      const about = parse(TREE, body)
      return { about, answer: () => encodeEntries(history.stored(about.agent, about.volume, about.path, about.at, about.depth)) }
    },
    lastWhole(body) {
      const about = parse(TREE, body)
      return { about, answer: async () => ({ time: await history.lastWhole(about.agent, about.volume, about.path, about.at) }) }
    },
    log(body) {
      const { agent, volume, path, from, until } = parse(LOG, body)
      const query = { path, from, until }
      return { about: { agent, volume, path, at: { from, until } }, answer: () => encodeLog(history.log(agent, volume, query)) }
    },
    versions(body) {
      const about = parse(VERSIONS, body)
      return { about, answer: () => encodeLog(history.versions(about.agent, about.volume, about.path)) }
    },
    marks(body) {
      const about = parse(VOLUME, body)
      return { about, answer: () => history.marks(about.agent, about.volume) }
    },
  }
}

/** @throws usage */
export function parse<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const checked = schema.safeParse(body)
  if (checked.success) return checked.data
  throw new PacsimileError(
    'usage',
    `The request is malformed: ${checked.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`.slice(
      0,
      500,
    ),
  )
}
