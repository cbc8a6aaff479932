/**
 * One session's message stream over a WebSocket, the same for both sides; it knows neither agent nor collector.
 *
 * Invariant: neither direction ever holds more than its byte bound: `send` waits for the kernel to take what was given
 * before, and the socket is paused while received messages wait to be taken. It prevents a slow peer from becoming
 * memory. Messages are decoded as they are taken; a malformed one ends the session with `protocol` and nothing else.
 */
import { asPacsimileError, PacsimileError } from './errors.ts'
import { CHUNK_BYTES_MAX } from './limits.ts'
import { decodeMessage, encodeMessage, type Message } from './wire.ts'

/** What is used of a `ws` WebSocket, so that this module needs no socket library. */
export interface MessageSocket {
  readonly readyState: number
  send(data: Uint8Array, callback: (error?: Error | null) => void): void
  ping(): void
  pause(): void
  resume(): void
  close(code?: number, reason?: string): void
  terminate(): void
  on(event: 'message', listener: (data: Uint8Array, isBinary: boolean) => void): unknown
  on(event: 'close', listener: (code: number, reason: Buffer) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  on(event: 'pong', listener: () => void): unknown
}

/** Received bytes that may wait to be taken before the socket is paused. */
const RECEIVE_BYTES_MAX = CHUNK_BYTES_MAX
/** Bytes given to the socket and not yet taken by the kernel, before `send` waits. */
const SEND_BYTES_MAX = 8 * 1024 * 1024
/** A peer that has not been heard of for this long is taken for dead. */
const SILENCE_MS_MAX = 30_000
const PING_MS = 10_000

const OPEN = 1
/** WebSocket close codes: normal, protocol error (RFC 6455, 7.4.1). */
const CLOSE_NORMAL = 1000
const CLOSE_PROTOCOL = 1002

/** What `ws` itself finds wrong with the peer's bytes is a breach of the protocol; anything else is the system's word. */
function connectionError(error: Error): PacsimileError {
  const isBreach = 'code' in error && String(error.code).startsWith('WS_ERR_')
  if (isBreach) return new PacsimileError('protocol', `The peer broke the WebSocket protocol: ${error.message}`, { cause: error })
  return asPacsimileError(error, 'The connection failed')
}

export class Link {
  readonly #socket: MessageSocket
  readonly #received: Uint8Array[] = []
  #receivedBytes = 0
  #paused = false
  #unsentBytes = 0
  #ended: PacsimileError | undefined
  #wakeReader: (() => void) | undefined
  readonly #wakeWriters: (() => void)[] = []
  #heardAt = Date.now()
  readonly #pinger: NodeJS.Timeout

  constructor(socket: MessageSocket) {
    this.#socket = socket
    socket.on('message', (data, isBinary) => this.#receive(data, isBinary))
    socket.on('pong', () => {
      this.#heardAt = Date.now()
    })
    socket.on('error', (error) => this.#end(connectionError(error)))
    socket.on('close', (code, reason) =>
      this.#end(
        new PacsimileError('protocol', `The connection was closed (${code}${reason.length > 0 ? ` ${reason.toString('utf8')}` : ''})`, {
          details: { closeCode: code },
        }),
      ),
    )
    this.#pinger = setInterval(() => this.#beat(), PING_MS)
  }

  get isOpen(): boolean {
    return this.#ended === undefined
  }

  #beat(): void {
    // While the receiver is paused by our own slowness a pong cannot arrive: that is not the peer's silence.
    if (!this.#paused && Date.now() - this.#heardAt > SILENCE_MS_MAX) {
      this.#end(new PacsimileError('timeout', `The peer was silent for ${SILENCE_MS_MAX / 1000} s`))
      this.#socket.terminate()
      return
    }
    if (this.#socket.readyState === OPEN) this.#socket.ping()
  }

  #receive(data: Uint8Array, isBinary: boolean): void {
    this.#heardAt = Date.now()
    if (this.#ended !== undefined) return
    if (!isBinary) {
      this.fail(new PacsimileError('protocol', 'A text message arrived; only binary messages are spoken here'))
      return
    }
    this.#received.push(data)
    this.#receivedBytes += data.length
    if (this.#receivedBytes > RECEIVE_BYTES_MAX && !this.#paused) {
      this.#paused = true
      this.#socket.pause()
    }
    this.#wakeReader?.()
  }

  #end(error: PacsimileError): void {
    if (this.#ended !== undefined) return
    this.#ended = error
    clearInterval(this.#pinger)
    this.#wakeReader?.()
    for (const wake of this.#wakeWriters.splice(0)) wake()
  }

  /** Resolves when the message is on its way and there is room for another. @throws what ended the session */
  async send(message: Message): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended
    const bytes = encodeMessage(message)
    this.#unsentBytes += bytes.length
    this.#socket.send(bytes, (error) => {
      this.#unsentBytes -= bytes.length
      if (error !== undefined && error !== null) this.#end(asPacsimileError(error, 'Sending failed'))
      if (this.#unsentBytes <= SEND_BYTES_MAX) for (const wake of this.#wakeWriters.splice(0)) wake()
    })
    while (this.#unsentBytes > SEND_BYTES_MAX && this.#ended === undefined)
      await new Promise<void>((resolve) => this.#wakeWriters.push(resolve))
    const { ended } = this
    if (ended !== undefined) throw ended
  }

  /** The next message; undefined when the session has ended and everything received was taken. One reader at a time. @throws protocol */
  async receive(): Promise<Message | undefined> {
    for (;;) {
      const data = this.#received.shift()
      if (data !== undefined) {
        this.#receivedBytes -= data.length
        if (this.#paused && this.#receivedBytes <= RECEIVE_BYTES_MAX / 2) {
          this.#paused = false
          this.#heardAt = Date.now()
          this.#socket.resume()
        }
        try {
          return decodeMessage(data)
        } catch (error) {
          const failure = asPacsimileError(error, 'Decoding a message')
          this.fail(failure)
          throw failure
        }
      }
      if (this.#ended !== undefined) return undefined
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve
      })
      this.#wakeReader = undefined
    }
  }

  /** Why the session ended; undefined while it lasts. */
  get ended(): PacsimileError | undefined {
    return this.#ended
  }

  /** Ends the session because the peer, or we, broke it. */
  fail(error: PacsimileError): void {
    this.#received.length = 0
    this.#socket.close(CLOSE_PROTOCOL, error.message.slice(0, 100))
    this.#end(error)
    // A peer that does not answer the close must not keep the socket.
    setTimeout(() => this.#socket.terminate(), 1000).unref()
  }

  close(): void {
    this.#socket.close(CLOSE_NORMAL)
    this.#end(new PacsimileError('protocol', 'The session was closed from this side'))
    setTimeout(() => this.#socket.terminate(), 1000).unref()
  }
}
