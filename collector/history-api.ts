/**
 * POST /v1/history/NAME: what restorers may ask over the agents' port (docs/protocol.md, "History").
 *
 * Order: who asks, whether there is room, what is asked, whether he may know, the line in the access log, and then the answer, at the
 * reader's pace. Invariant: content is asked for by the place where a history has it, never by its digest alone. It prevents a
 * restorer of one volume from reading, or from being told of, what is in another because both hold the same bytes.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { basename } from 'node:path'
import { z } from 'zod'
import { jsonBody, sendBytes, sendError, sendResult } from '../shared/api-answer.ts'
import { asPacsimileError, type ErrorCode, PacsimileError } from '../shared/errors.ts'
import { ASKED_CHUNKS_MAX, ASKED_FILES_MAX, CHUNKS_PER_VERSION_MAX, QUESTION_BYTES_MAX, READER_STALL_MS } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import { showPath } from '../shared/path.ts'
import { HISTORY_PATH } from '../shared/wire.ts'
import type { AccessLog } from './access-log.ts'
import type { AnswerSlots } from './answer-slots.ts'
import type { Catalog, Damage } from './catalog.ts'
import type { History } from './history.ts'
import { type About, historyQuestions, PATH, POSITION, parse, type Question, type Questions, VOLUME } from './history-questions.ts'
import type { ChunkResult } from './history-source.ts'
import { encodeChunks } from './history-wire.ts'
import type { AllowedReader, Readers } from './readers.ts'

const STATUS: Partial<Record<ErrorCode, number>> = {
  'usage': 400,
  'protocol': 400,
  'format-invalid': 400,
  'not-trusted': 403,
  'not-allowed': 403,
  'not-found': 404,
  'outside-window': 404,
  'unsupported': 404,
  'timeout': 408,
  'busy': 429,
  'rebuilding': 503,
}

/** Parts of files: of each, so many chunks from one on, as the version there has them. */
const CONTENT = VOLUME.extend({
  files: z
    .array(
      z.object({
        path: PATH,
        at: POSITION,
        from: z.int().nonnegative(),
        count: z.int().min(1).max(CHUNKS_PER_VERSION_MAX),
      }),
    )
    .min(1)
    .max(ASKED_FILES_MAX)
    .refine((files) => files.reduce((sum, { count }) => sum + count, 0) <= ASKED_CHUNKS_MAX, `more than ${ASKED_CHUNKS_MAX} chunks`),
})
type AskedFile = z.output<typeof CONTENT>['files'][number]

export interface ReadingParts {
  readonly readers: Readers
  readonly slots: AnswerSlots
  readonly access: AccessLog
  readonly history: History
  readonly catalog: Catalog
  /** @throws rebuilding while the catalog lacks something */
  readonly requireFolded: () => void
  readonly log: Log
}

export class HistoryApi {
  readonly #parts: ReadingParts
  readonly #questions: Questions

  constructor(parts: ReadingParts) {
    this.#parts = parts
    this.#questions = {
      ...historyQuestions(parts.history),
      damage: () => ({ about: undefined, answer: () => Promise.resolve(parts.history.damage.map(withoutDirectory)) }),
      content: (body) => this.#content(body),
    }
  }

  /** Answers one request; never throws. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    try {
      const reader = this.#parts.readers.byCertificate(request)
      this.#parts.requireFolded()
      await this.#parts.slots.use(reader.name, async () => {
        const name = (request.url ?? '').slice(HISTORY_PATH.length)
        const question = await this.#asked(name, request)
        await this.#check(reader, name, question.about)
        await this.#give(reader, name, question, response, gone.signal)
      })
    } catch (error) {
      if (gone.signal.aborted) return
      const refusal = asPacsimileError(error, `Question ${request.url ?? ''}`)
      if (refusal.code === 'internal')
        this.#parts.log.error('a question was not answered', { reason: refusal.message, stack: refusal.stack })
      // Whatever of the request was not read is not worth reading.
      if (!response.headersSent) response.setHeader('connection', 'close')
      sendError(response, refusal, STATUS[refusal.code] ?? 500)
    }
  }

  async #asked(name: string, request: IncomingMessage): Promise<Question> {
    const question = request.method === 'POST' && Object.hasOwn(this.#questions, name) ? this.#questions[name] : undefined
    if (question === undefined) throw new PacsimileError('unsupported', 'This collector does not know that question')
    return question(await jsonBody(request, QUESTION_BYTES_MAX, 'The question'))
  }

  /** @throws not-allowed, not-found */
  async #check(reader: AllowedReader, name: string, about: About | undefined): Promise<void> {
    if (about === undefined) return
    const { agent, volume } = about
    const { allowance } = reader
    if (!allowance.has(about)) {
      this.#parts.access.ended(this.#parts.access.asked(reader, name, factsOf(about)), 'not-allowed', 0)
      throw new PacsimileError('not-allowed', `The restorer ${reader.name} may read ${allowance.toString()}, not ${agent}:${volume}`)
    }
    if (this.#parts.catalog.volume(agent, volume) !== undefined) return
    const known = (await this.#parts.history.volumes())
      .filter((place) => allowance.has(place))
      .map((place) => `${place.agent}:${place.volume}`)
    throw new PacsimileError('not-found', `There is no volume ${agent}:${volume}; known: ${known.length === 0 ? 'none' : known.join(', ')}`)
  }

  async #give(
    reader: AllowedReader,
    name: string,
    { about, answer }: Question,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> {
    const { access } = this.#parts
    const id = access.asked(reader, name, about === undefined ? {} : factsOf(about))
    let outcome = 'cut'
    const sent = { bytes: 0 }
    try {
      const answered = answer(reader.allowance)
      if (Symbol.asyncIterator in answered) await sendBytes(response, counted(answered, sent), signal, READER_STALL_MS)
      else sendResult(response, await answered)
      outcome = 'whole'
    } catch (error) {
      if (!signal.aborted) outcome = asPacsimileError(error, name).code
      throw error
    } finally {
      access.ended(id, outcome, sent.bytes)
    }
  }

  #content(body: unknown): Question {
    const { agent, volume, files } = parse(CONTENT, body)
    const named = files.map(({ path, at, from, count }) => [showPath(path), at.epoch, at.seq, from, count])
    return { about: { agent, volume, at: named }, answer: () => encodeChunks(this.#chunks({ agent, volume }, files)) }
  }

  async *#chunks({ agent, volume }: Pick<About, 'agent' | 'volume'>, files: readonly AskedFile[]): AsyncGenerator<ChunkResult> {
    const { catalog, history } = this.#parts
    for (const { path, at, from, count } of files) {
      const version = catalog.versionBy(agent, volume, path, at)
      const refs = version?.kind === 'file' ? version.chunks.slice(from, from + count) : []
      if (refs.length < count)
        throw new PacsimileError('not-found', `${agent}:${volume}/${showPath(path)} has no such content by record ${at.epoch}:${at.seq}`)
      yield* history.chunks(refs)
    }
  }
}

/** Where the repository lies is nothing to another host. */
function withoutDirectory(damage: Damage): Damage {
  return { ...damage, file: basename(damage.file) }
}

function factsOf({ agent, volume, path, at }: About): object {
  return { agent, volume, ...(path === undefined ? {} : { path: showPath(path) }), ...(at === undefined ? {} : { at }) }
}

async function* counted(source: AsyncIterable<Uint8Array>, sent: { bytes: number }): AsyncGenerator<Uint8Array> {
  for await (const bytes of source) {
    yield bytes
    sent.bytes += bytes.length
  }
}
