/**
 * Read leases (fcntl(2)) of one capture thread, each shown to the warden as long as it is held (lease-warden.ts).
 *
 * A read lease is granted only while nobody has the file open for writing, and is broken by whoever opens it: what was
 * read under a lease that is unbroken at the end is one whole state. Invariant: a lease that somebody waits for is given
 * up by the warden, whatever this thread is doing. It prevents the agent from holding up the archive's own writers.
 */
import { libc } from '../shared/libc.ts'

/** Per thread, in the memory shared with the warden: whether it works on a batch, and the descriptors of its leases. */
const LEASES_PER_THREAD = 2
export const WORDS_PER_THREAD = 1 + LEASES_PER_THREAD
/** Words that belong to no thread: what the warden has to wake up for is counted, the others are 0 or 1. */
export const WARDEN = { wakeUps: 0, isToEnd: 1, isThere: 2 } as const
/** The threads' words follow. */
export const WARDEN_WORDS = 3
export const NO_LEASE = -1
/** For a warden that is being started. Without one there are no leases, and files are read when they are quiet. */
const WARDEN_START_MS = 5000

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
  #hasWaited = false

  constructor({ shared, at }: LeaseMemory) {
    this.#words = new Int32Array(shared)
    this.#at = at
  }

  /** The warden looks at this thread's leases until `endWork`: one call for a batch, so that small files do not wake it. */
  beginWork(): void {
    Atomics.store(this.#words, this.#at, 1)
    Atomics.add(this.#words, WARDEN.wakeUps, 1)
    Atomics.notify(this.#words, WARDEN.wakeUps)
  }

  endWork(): void {
    Atomics.store(this.#words, this.#at, 0)
  }

  /**
   * `busy` when somebody has the file open for writing or mapped writable, `unsupported` where it cannot be asked, or where
   * nobody would give it up.
   */
  take(fd: number): Lease | 'busy' | 'unsupported' {
    if (!this.#isWatched()) return 'unsupported'
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

  /** Waits for a warden that is being started, but not again and again for one that does not come. */
  #isWatched(): boolean {
    if (!this.#hasWaited) Atomics.wait(this.#words, WARDEN.isThere, 0, WARDEN_START_MS)
    this.#hasWaited = true
    return Atomics.load(this.#words, WARDEN.isThere) === 1
  }

  #freeSlot(): number {
    for (let slot = this.#at + 1; slot < this.#at + WORDS_PER_THREAD; slot++) {
      if (Atomics.load(this.#words, slot) === NO_LEASE) return slot
    }
    throw new TypeError(`a thread holds at most ${LEASES_PER_THREAD} leases`)
  }
}
