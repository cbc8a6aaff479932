/**
 * What was sent and is not acknowledged, and whether more may be sent. Pure.
 *
 * Invariant: beyond the deliveries that wait for an ack no more than the window is under way; a single delivery may be
 * larger than it. It prevents a collector that is slow to commit from being flooded, and a large file from never being sent.
 */
import type { ChainHead } from '../shared/wire.ts'

interface Sent {
  readonly head: ChainHead
  readonly bytes: number
}

export class SendWindow {
  readonly #windowBytes: number
  readonly #sent: Sent[] = []
  #sentBytes = 0
  /** Of the delivery that is being sent. */
  #currentBytes = 0
  #mayGo = true

  constructor(windowBytes: number) {
    this.#windowBytes = windowBytes
  }

  get hasRoom(): boolean {
    return this.#mayGo && (this.#sent.length === 0 || this.#sentBytes + this.#currentBytes < this.#windowBytes)
  }

  /** The peer's word on whether it takes more. */
  set mayGo(go: boolean) {
    this.#mayGo = go
  }

  add(bytes: number): void {
    this.#currentBytes += bytes
  }

  /** The delivery that ends at `head` is sent. */
  end(head: ChainHead): void {
    this.#sent.push({ head, bytes: this.#currentBytes })
    this.#sentBytes += this.#currentBytes
    this.#currentBytes = 0
  }

  /** The hash of the delivery that ends at `seq`, if one does. */
  hashAt(seq: number): ChainHead['hash'] | undefined {
    return this.#sent.find(({ head }) => head.seq === seq)?.head.hash
  }

  acknowledge(seq: number): void {
    const waiting = this.#sent.findIndex(({ head }) => head.seq > seq)
    const done = this.#sent.splice(0, waiting < 0 ? this.#sent.length : waiting)
    for (const { bytes } of done) this.#sentBytes -= bytes
  }
}
