/**
 * Read leases (fcntl(2)) of one capture thread, each shown to the warden as long as it is held (lease-warden.ts).
 *
 * A read lease is granted only while nobody has the file open for writing, and is broken by whoever opens it: what was
 * read under a lease that is unbroken at the end is one whole state. Invariant: a lease that somebody waits for is given
 * up by the warden, whatever this thread is doing. It prevents the agent from holding up the archive's own writers.
 */
import { libc } from '../shared/libc.ts'

/** Per thread, in the memory shared with the warden: whether it works on a batch, and the descriptors of its leases. */
export const LEASES_PER_THREAD = 2
export const WORDS_PER_THREAD = 1 + LEASES_PER_THREAD
/** Word 0 counts what the warden has to wake up for, word 1 asks it to end; the threads follow. */
export const WARDEN_WORDS = 2
export const NO_LEASE = -1

export interface LeaseMemory {
  readonly shared: SharedArrayBuffer
  /** The thread's first word. */
  readonly at: number
}

export interface Lease {
  /** Also once it is released. */
  readonly isBroken: () => boolean
  readonly release: () => void
}

export class Leases {
  readonly #words: Int32Array
  readonly #at: number

  constructor({ shared, at }: LeaseMemory) {
    this.#words = new Int32Array(shared)
    this.#at = at
  }

  /** The warden looks at this thread's leases until `endWork`: one call for a batch, so that small files do not wake it. */
  beginWork(): void {
    Atomics.store(this.#words, this.#at, 1)
    Atomics.add(this.#words, 0, 1)
    Atomics.notify(this.#words, 0)
  }

  endWork(): void {
    Atomics.store(this.#words, this.#at, 0)
  }

  /** `busy` when somebody has the file open for writing or mapped writable, `unsupported` where it cannot be asked. */
  take(fd: number): Lease | 'busy' | 'unsupported' {
    const answer = libc?.takeReadLease(fd) ?? 'unsupported'
    if (answer !== 'granted') return answer
    const slot = this.#freeSlot()
    Atomics.store(this.#words, slot, fd)
    let isReleased = false
    return {
      isBroken: () => isReleased || libc?.holdsReadLease(fd) !== true,
      release: () => {
        if (isReleased) return
        isReleased = true
        // Whoever opens another file under this number must not have the warden look at it.
        Atomics.store(this.#words, slot, NO_LEASE)
        libc?.releaseLease(fd)
      },
    }
  }

  #freeSlot(): number {
    for (let slot = this.#at + 1; slot < this.#at + WORDS_PER_THREAD; slot++) {
      if (Atomics.load(this.#words, slot) === NO_LEASE) return slot
    }
    throw new TypeError(`a thread holds at most ${LEASES_PER_THREAD} leases`)
  }
}
