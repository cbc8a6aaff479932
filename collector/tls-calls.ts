/**
 * Questions of a restorer to a collector: JSON over HTTPS, on connections that are kept for the next one.
 *
 * Invariant: an answer is whole or an error, as everywhere (shared/api-answer.ts), and a network that has gone silent is noticed. It
 * prevents a restore that waits for ever, and one that ends well because the connection did.
 */
import { once } from 'node:events'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import { JSON_TYPE, jsonText, readBytes, readResult } from '../shared/api-answer.ts'
import { errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { ANSWERS_PER_RESTORER_MAX } from '../shared/limits.ts'
import { asConnectionError } from '../shared/token-exchange.ts'
import { HISTORY_PATH } from '../shared/wire.ts'
import type { HistoryCalls } from './remote-history.ts'
import type { RestorerIdentity } from './restorer-identity.ts'

const CONNECT_MS_MAX = 30_000
/** A peer that is silent for so long is asked by the kernel whether it is there. */
const SILENT_MS = 10_000

export class TlsCalls implements HistoryCalls {
  readonly #identity: RestorerIdentity
  readonly #connections: Agent

  constructor(identity: RestorerIdentity) {
    this.#identity = identity
    this.#connections = new Agent({ keepAlive: true, keepAliveMsecs: SILENT_MS, maxSockets: ANSWERS_PER_RESTORER_MAX / 2, ...identity.tls })
  }

  async call(name: string, body: object): Promise<unknown> {
    try {
      return await readResult(await this.#ask(name, body), name)
    } catch (error) {
      throw this.#asCallError(error, name)
    }
  }

  async *stream(name: string, body: object): AsyncGenerator<Buffer, void> {
    let answer: IncomingMessage | undefined
    try {
      answer = await this.#ask(name, body)
      yield* readBytes(answer, name)
    } catch (error) {
      throw this.#asCallError(error, name)
    } finally {
      // Whoever stopped in its middle wants no more of it.
      if (answer?.complete !== true) answer?.destroy()
    }
  }

  /** An idle connection may be closed by the collector at the very moment at which it is used: what had no answer is asked once more. */
  async #ask(name: string, body: object): Promise<IncomingMessage> {
    const text = jsonText(body)
    const first = this.#post(name, text)
    try {
      return await answerOf(first)
    } catch (error) {
      const errno = errnoOf(error)
      if (!first.reusedSocket || (errno !== 'ECONNRESET' && errno !== 'EPIPE')) throw error
      return answerOf(this.#post(name, text))
    }
  }

  #post(name: string, text: string): ClientRequest {
    const { host, port } = this.#identity.collector
    const headers = { 'content-type': JSON_TYPE, 'content-length': Buffer.byteLength(text) }
    const asking = request({ host, port, path: HISTORY_PATH + name, method: 'POST', agent: this.#connections, headers })
    asking.once('socket', (socket) => {
      socket.setKeepAlive(true, SILENT_MS)
      if (!socket.connecting) return
      const tooLong = new PacsimileError('collector-unreachable', `${this.#identity.collector.url} does not answer`)
      const timer = setTimeout(() => asking.destroy(tooLong), CONNECT_MS_MAX)
      for (const event of ['secureConnect', 'close']) socket.once(event, () => clearTimeout(timer))
    })
    // After the answer has begun, its reader is told of errors; the request repeats them, and would end the process.
    asking.on('error', () => {})
    asking.end(text)
    return asking
  }

  #asCallError(error: unknown, name: string): PacsimileError {
    const { url } = this.#identity.collector
    if (errnoOf(error) === 'ECONNRESET' || errnoOf(error) === 'EPIPE' || errnoOf(error) === 'ETIMEDOUT') {
      const what = `The connection to ${url} was cut while it answered ${name} (${reasonOf(error)}). A restore goes on when it is given again`
      return new PacsimileError('collector-unreachable', what, { cause: error })
    }
    return asConnectionError(error, url)
  }

  close(): void {
    this.#connections.destroy()
  }
}

async function answerOf(asking: ClientRequest): Promise<IncomingMessage> {
  const [answer] = (await once(asking, 'response')) as [IncomingMessage]
  return answer
}
