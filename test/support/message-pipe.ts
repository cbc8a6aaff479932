/** Two ends of a connection in memory, as `Link` takes them: what one sends, the other receives in a later turn. */
import type { MessageSocket } from '../../shared/link.ts'

type Listener = (...values: never[]) => void

class PipeEnd implements MessageSocket {
  readyState = 1
  peer: PipeEnd | undefined
  readonly #listeners = new Map<string, Listener[]>()
  readonly #waiting: Uint8Array[] = []
  #isPaused = false

  on(event: string, listener: Listener): this {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener])
    return this
  }

  #emit(event: string, ...values: unknown[]): void {
    for (const listener of this.#listeners.get(event) ?? []) (listener as (...all: unknown[]) => void)(...values)
  }

  send(data: Uint8Array, callback: (error?: Error | null) => void): void {
    const bytes = Buffer.from(data)
    setImmediate(() => {
      this.peer?.deliver(bytes)
      callback(this.readyState === 1 ? null : new Error('closed'))
    })
  }

  deliver(bytes: Uint8Array): void {
    if (this.#isPaused) this.#waiting.push(bytes)
    else if (this.readyState === 1) this.#emit('message', bytes, true)
  }

  ping(): void {
    setImmediate(() => this.#emit('pong'))
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    while (!this.#isPaused && this.#waiting.length > 0) this.#emit('message', this.#waiting.shift(), true)
  }

  close(code = 1000, reason = ''): void {
    if (this.readyState !== 1) return
    this.readyState = 3
    setImmediate(() => {
      this.#emit('close', code, Buffer.from(reason))
      this.peer?.close(code, reason)
    })
  }

  terminate(): void {
    this.close(1006)
  }
}

export function messagePipe(): [MessageSocket, MessageSocket] {
  const [a, b] = [new PipeEnd(), new PipeEnd()]
  a.peer = b
  b.peer = a
  return [a, b]
}
