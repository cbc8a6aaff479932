/**
 * Content that one agent was asked for: questions that wait for their answer.
 *
 * Invariant: an answer is taken only for a question that waits, and only with the digest that was asked for; each question ends, at the
 * latest with its session or after ASK_MS_MAX. It prevents a file that is another by now, or an agent that lies, from becoming history,
 * and a file system that hangs on a host from stopping the repairs here.
 */
import { digestHex, digestOf } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'
import { plainOf } from '../shared/stored-form.ts'
import type { ChunkRef } from '../shared/version.ts'
import type { AskedSpot, Message } from '../shared/wire.ts'

type AnswerMessage = Extract<Message, { kind: 'answer' }>

interface Question {
  readonly chunk: ChunkRef
  readonly resolve: (plain: Buffer | undefined) => void
  readonly reject: (error: PacsimileError) => void
}

const ASK_MS_MAX = 60_000
const ID_MAX = 2 ** 32 - 1

export class AskedChunks {
  readonly #agent: Label
  readonly #send: (message: Message) => Promise<void>
  readonly #waiting = new Map<number, Question>()
  #lastId = 0

  constructor(agent: Label, send: (message: Message) => Promise<void>) {
    this.#agent = agent
    this.#send = send
  }

  /** Undefined where none of the files holds it any more. @throws agent-unreachable, timeout */
  async ask(chunk: ChunkRef, spots: readonly AskedSpot[]): Promise<Buffer | undefined> {
    const { digest, length } = chunk
    const id = this.#nextId()
    const late = new PacsimileError('timeout', `Agent ${this.#agent} did not answer within ${ASK_MS_MAX / 1000} s`)
    const timer = setTimeout(() => this.#waiting.get(id)?.reject(late), ASK_MS_MAX)
    try {
      return await new Promise<Buffer | undefined>((resolve, reject) => {
        this.#waiting.set(id, { chunk, resolve, reject })
        this.#send({ kind: 'ask', id, digest, length, spots }).catch((error: unknown) => reject(this.#gone(error)))
      })
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(id)
    }
  }

  /** An answer that comes late is passed over. @throws protocol where it is not what was asked for */
  take(answer: AnswerMessage): void {
    const question = this.#waiting.get(answer.id)
    if (question === undefined) return
    question.resolve(answer.length === 0 ? undefined : contentOf(answer, question.chunk))
  }

  /** The session is over. */
  end(): void {
    for (const { reject } of this.#waiting.values()) reject(this.#gone(undefined))
  }

  #gone(cause: unknown): PacsimileError {
    return new PacsimileError('agent-unreachable', `Agent ${this.#agent} disconnected`, { cause })
  }

  #nextId(): number {
    this.#lastId = (this.#lastId % ID_MAX) + 1
    return this.#lastId
  }
}

function contentOf(answer: AnswerMessage, { digest, length }: ChunkRef): Buffer {
  const plain = answer.length === length ? plainIfWhole(answer, length) : undefined
  if (plain !== undefined && digestOf(plain) === digest) return plain
  throw new PacsimileError('protocol', `What was sent for chunk ${digestHex(digest)} is another content`)
}

function plainIfWhole(answer: AnswerMessage, length: number): Buffer | undefined {
  try {
    return plainOf(answer, length)
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
    return undefined
  }
}
