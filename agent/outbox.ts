/**
 * A capture thread's way out: compresses chunks, packs them with outcomes into few messages, and waits when too much is
 * under way.
 *
 * Invariant: no more than CAPTURE_BYTES_IN_FLIGHT (and one chunk) are with the main thread and not yet taken over by it.
 * It prevents a 50 GB file from becoming 50 GB of memory.
 */
import type { MessagePort } from 'node:worker_threads'
import type { Digest } from '../shared/digest.ts'
import { CAPTURE_BYTES_IN_FLIGHT } from '../shared/limits.ts'
import type { Samples } from '../shared/sample-filter.ts'
import { storedForm } from '../shared/stored-form.ts'
import type { CapturedMessage, Outcome, ShippedChunk } from './capture-job.ts'

/** Bytes packed into one message; a larger chunk goes alone. */
const PARCEL_BYTES = 1024 * 1024
/** How long a full outbox sleeps before it looks whether its file's writer waits. */
const WAIT_MS = 4

export class Outbox {
  readonly #port: MessagePort
  readonly #bytesInFlight: Int32Array
  #parcel = new Uint8Array(PARCEL_BYTES)
  #parcelLength = 0
  #chunks: ShippedChunk[] = []
  #outcomes: [number, Outcome][] = []

  constructor(port: MessagePort, bytesInFlight: SharedArrayBuffer) {
    this.#port = port
    this.#bytesInFlight = new Int32Array(bytesInFlight)
  }

  /** Sends a chunk's content. While it waits for room it asks `isInterrupted`, and gives up with false if so. */
  ship(job: number, digest: Digest, plain: Uint8Array, samples: Samples | undefined, isInterrupted: () => boolean): boolean {
    if (!this.#waitForRoom(isInterrupted)) return false
    const { bytes, ...form } = storedForm(plain, samples)
    if (this.#parcelLength + bytes.length > this.#parcel.length) {
      this.flush()
      if (bytes.length > this.#parcel.length) this.#parcel = new Uint8Array(bytes.length)
    }
    const offset = this.#parcelLength
    this.#parcel.set(bytes, offset)
    this.#parcelLength += bytes.length
    this.#chunks.push({ job, digest, ...form, length: plain.length, offset, storedLength: bytes.length })
    if (this.#parcelLength >= PARCEL_BYTES) this.flush()
    return true
  }

  end(job: number, outcome: Outcome): void {
    this.#outcomes.push([job, outcome])
  }

  flush(): void {
    if (this.#chunks.length === 0 && this.#outcomes.length === 0) return
    // A copy of the exact size: the main thread may hold it for long, and the parcel stays hot.
    const bytes = this.#parcel.slice(0, this.#parcelLength)
    Atomics.add(this.#bytesInFlight, 0, bytes.length)
    const message: CapturedMessage = { bytes, chunks: this.#chunks, outcomes: this.#outcomes }
    this.#port.postMessage(message, [bytes.buffer])
    this.#chunks = []
    this.#outcomes = []
    this.#parcelLength = 0
  }

  #waitForRoom(isInterrupted: () => boolean): boolean {
    for (;;) {
      const bytes = Atomics.load(this.#bytesInFlight, 0)
      if (bytes <= CAPTURE_BYTES_IN_FLIGHT) return true
      // What is still packed here could be what the main thread waits for.
      this.flush()
      if (isInterrupted()) return false
      Atomics.wait(this.#bytesInFlight, 0, bytes, WAIT_MS)
    }
  }
}
