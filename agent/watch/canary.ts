/**
 * Proof that watching works: now and then a file without a name is made on each watched filesystem and closed, and the
 * kernel must tell of it.
 *
 * The file has no name (open(2), O_TMPFILE), so nothing is seen of it in any directory; where none can be made, an answered
 * fence and the marks that the kernel lists stand in. Invariant: time counts as proven only up to the moment before a file
 * whose event came back. It prevents a watcher that died in silence from passing for a quiet archive.
 */
import { constants } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import type { ByteString } from '../../shared/bytes.ts'
import { CANARY_MS } from '../../shared/limits.ts'
import type { Fence } from './watcher.ts'

export interface Proof {
  /** ms since 1970. */
  readonly provenMs: number | undefined
  /** For how long a proof has been waited for. */
  readonly silentMs: number
}

interface Filesystem {
  watchers: number
  readonly directory: string
  provenMs: number | undefined
  /** When the first canary that has not come back was let go, on the monotonic clock. */
  waitingSinceMs: number | undefined
}

interface Flight {
  readonly filesystem: Filesystem
  readonly wallMs: number
  hasName: boolean
  hasPin: boolean
}

/** linux/fcntl.h, O_TMPFILE: `constants` does not have it. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY

export class Canary {
  readonly #parts: { readonly stateDir: string; readonly fence: () => Promise<Fence>; readonly marks: () => number }
  readonly #filesystems = new Map<ByteString, Filesystem>()
  readonly #flights = new Map<bigint, Flight>()
  readonly #timer: NodeJS.Timeout
  #isFlying = false

  constructor(parts: { stateDir: string; fence: () => Promise<Fence>; marks: () => number }) {
    this.#parts = parts
    this.#timer = setInterval(() => void this.#fly(), CANARY_MS)
  }

  /** A volume on this filesystem is watched. */
  add(filesystem: ByteString, directory: string): void {
    const known = this.#filesystems.get(filesystem)
    if (known !== undefined) known.watchers += 1
    else this.#filesystems.set(filesystem, { watchers: 1, directory, provenMs: undefined, waitingSinceMs: undefined })
    void this.#fly()
  }

  remove(filesystem: ByteString): void {
    const known = this.#filesystems.get(filesystem)
    if (known === undefined) return
    known.watchers -= 1
    if (known.watchers === 0) this.#filesystems.delete(filesystem)
  }

  proof(filesystem: ByteString): Proof {
    const { provenMs, waitingSinceMs } = this.#filesystems.get(filesystem) ?? {}
    return { provenMs, silentMs: waitingSinceMs === undefined ? 0 : performance.now() - waitingSinceMs }
  }

  /** What came back. While versions wait for room, the pin group's word is late without being dead. */
  seen(names: readonly ByteString[], pins: readonly bigint[], arePinsBehind: boolean): void {
    for (const name of names) this.#note(BigInt(/^#(\d+)$/.exec(name)?.[1] ?? -1), (flight) => void (flight.hasName = true))
    for (const inode of pins) this.#note(inode, (flight) => void (flight.hasPin = true))
    if (!arePinsBehind) return
    for (const { filesystem, hasName } of this.#flights.values()) if (hasName) filesystem.waitingSinceMs = undefined
  }

  #note(inode: bigint, note: (flight: Flight) => void): void {
    const flight = this.#flights.get(inode)
    if (flight === undefined) return
    note(flight)
    if (!flight.hasName || !flight.hasPin) return
    this.#flights.delete(inode)
    this.#prove(flight.filesystem, flight.wallMs)
  }

  #prove(filesystem: Filesystem, wallMs: number): void {
    filesystem.provenMs = Math.max(filesystem.provenMs ?? 0, wallMs)
    filesystem.waitingSinceMs = undefined
  }

  async #fly(): Promise<void> {
    // A disk that hangs must not be asked again and again.
    if (this.#isFlying) return
    this.#isFlying = true
    try {
      for (const filesystem of this.#filesystems.values()) await this.#send(filesystem)
    } finally {
      this.#isFlying = false
    }
  }

  async #send(filesystem: Filesystem): Promise<void> {
    const wallMs = Date.now()
    filesystem.waitingSinceMs ??= performance.now()
    for (const [inode, flight] of this.#flights)
      if (flight.filesystem === filesystem && wallMs - flight.wallMs > 10 * CANARY_MS) this.#flights.delete(inode)
    for (const directory of await this.#directoriesFor(filesystem)) {
      try {
        const file = await open(directory, O_TMPFILE | constants.O_WRONLY, 0o600)
        const { ino } = await file.stat({ bigint: true })
        this.#flights.set(ino, { filesystem, wallMs, hasName: false, hasPin: false })
        await file.close()
        return
      } catch {
        // Not here: the next one may do, and the fence below always does.
      }
    }
    const marks = this.#parts.marks()
    const { isBehind } = await this.#parts.fence()
    if (!isBehind && marks > 0) this.#prove(filesystem, wallMs)
  }

  /** The agent's own directory where it is on that filesystem; else the volume's. */
  async #directoriesFor({ directory }: Filesystem): Promise<string[]> {
    try {
      const [own, watched] = await Promise.all([stat(this.#parts.stateDir), stat(directory)])
      return own.dev === watched.dev ? [this.#parts.stateDir] : [directory]
    } catch {
      return [directory]
    }
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
