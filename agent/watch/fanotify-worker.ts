/**
 * The thread that reads the kernel's events: it blocks in poll(2), and never for anybody else.
 *
 * Order of a round: orders from the main thread; events, read into the hint log; versions closed after writing, as open
 * descriptors; then all of it is told at once, versions first, but for what has no name, which may wait a moment for more. A fence is answered when both groups were read to their end
 * after it was asked for. Invariant: what is told as one round holds every version that was closed before the newest event in
 * it, or says that it does not. It prevents a file's newer state from being recorded before its older versions.
 */
import { closeSync, fstatSync, readSync } from 'node:fs'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import type { ByteString } from '../../shared/bytes.ts'
import { errnoOf, reasonOf } from '../../shared/errors.ts'
import { EVENT_BYTES_MAX, PINS_OPEN_MAX } from '../../shared/limits.ts'
import { DirectoryPaths, type Mount } from './directory-paths.ts'
import { EventPlaces, missed, tell } from './event-places.ts'
import { EVENT, poll } from './fanotify-calls.ts'
import { type FanotifyEvent, fanotifyEvents } from './fanotify-events.ts'
import type { FanotifyOrder, FanotifyReport, FanotifyThreadData, PinnedVersion } from './fanotify-reports.ts'
import { HintLog } from './hint-log.ts'
import { nameOfOpen } from './pin-path.ts'
import type { WatchEvent } from './watcher.ts'
import { Writers } from './writers.ts'

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort

/** After a short read the kernel is given this long to merge what comes next. */
const NAP_MS = 2
/** What is told of without a name is mostly somebody else's, and each telling costs a look into the state: for so long it is gathered. */
const NAMELESS_HOLD_MS = 50
/** Each event of the pin group opens a descriptor when it is read: few at a time. */
const PIN_EVENT_BYTES = 24
const PINS_READ_MAX = 64
/** How long the volumes of the life before are waited for. */
const EXPECTED_MS_MAX = 3000
const EXPECTING_POLL_MS = 50
/** Rounds of reading before what was read is told. */
const ROUND_BYTES_MAX = 4 * EVENT_BYTES_MAX
const DELETED = ' (deleted)'
const REGULAR = 0o100000
const KIND_MASK = 0o170000

class Reader {
  readonly #data = workerData as FanotifyThreadData
  readonly #log: HintLog
  readonly #mounts = new Map<ByteString, Mount>()
  readonly #watched = new Map<string, Extract<FanotifyOrder, { kind: 'watch' }>>()
  readonly #directories = new DirectoryPaths(this.#mounts)
  readonly #writers = new Writers()
  readonly #places = new EventPlaces({ directories: this.#directories, writers: this.#writers, ownPid: this.#data.ownPid })
  readonly #pinBytes = Buffer.alloc(PIN_EVENT_BYTES * PINS_READ_MAX)
  /** Slots of the hint log that hold no version. The main thread gives them back. */
  readonly #slots: Int32Array
  readonly #expected = new Set(this.#data.expected)
  readonly #expectedUntilMs = performance.now() + EXPECTED_MS_MAX
  #fences: number[] = []
  #isEnding = false
  /** The kernel gives closed versions in their order: those of before the newest that was read have all been read. */
  #closedBeforeNs = 0n
  #own: ByteString[] = []
  #ownPins: bigint[] = []

  constructor() {
    this.#slots = new Int32Array(this.#data.slots)
    this.#log = HintLog.open(this.#data.hints)
  }

  run(): void {
    const { names, pins, wakeup } = this.#data
    while (!this.#isEnding) {
      // Announced before looking once more: a slot that is given back in between is seen.
      if (this.#freeSlots() === 0) Atomics.store(this.#slots, PINS_OPEN_MAX, 1)
      const hasRoom = this.#freeSlots() > 0
      const mayRead = !this.#log.isFull(EVENT_BYTES_MAX)
      const isExpecting = this.#isExpecting
      const waitFor = [wakeup, ...(mayRead ? [names] : []), ...(hasRoom && !isExpecting ? [pins] : [])]
      const isWoken = poll(waitFor, isExpecting ? EXPECTING_POLL_MS : this.#namelessWaitMs())[0] === true
      if (isWoken) this.#takeOrders()
      if (!this.#isEnding) this.#round()
    }
    this.#tellHeld()
    this.#directories.close()
    this.#log.close()
  }

  /** Whether versions may be of a volume that is not watched again yet. */
  get #isExpecting(): boolean {
    return this.#expected.size > 0 && performance.now() < this.#expectedUntilMs
  }

  #freeSlots(): number {
    let free = 0
    for (let slot = 0; slot < PINS_OPEN_MAX; slot++) if (Atomics.load(this.#slots, slot) === 0) free += 1
    return free
  }

  #takeOrders(): void {
    readSync(this.#data.wakeup, Buffer.alloc(8))
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port))
      this.#obey(next.message as FanotifyOrder)
  }

  #obey(order: FanotifyOrder): void {
    switch (order.kind) {
      case 'watch':
        // What the new one is told of from the life before stands for all that was read before it.
        this.#tellHeld()
        this.#expected.delete(order.volume.name)
        this.#places.add(order.volume)
        this.#watched.set(order.volume.name, order)
        this.#mounts.set(order.filesystem, order.mount)
        if (order.isContinuous) this.#replay(order.volume.name)
        this.#post({ kind: 'watching', volume: order.volume.name })
        return
      case 'forget':
        this.#forget(order.volume)
        return
      case 'verified':
        this.#log.setVerified(order.volumes)
        return
      case 'settled':
        this.#log.settle(order.mark)
        return
      case 'fence':
        this.#fences.push(order.id)
        return
      case 'end':
        this.#isEnding = true
    }
  }

  /** Another volume of its filesystem lends its directory from now on, if there is one. */
  #forget(volume: string): void {
    const filesystem = this.#watched.get(volume)?.filesystem
    this.#watched.delete(volume)
    this.#places.remove(volume)
    if (filesystem !== undefined) {
      const other = [...this.#watched.values()].find((watched) => watched.filesystem === filesystem)
      if (other === undefined) this.#mounts.delete(filesystem)
      else this.#mounts.set(filesystem, other.mount)
    }
    this.#post({ kind: 'forgotten', volume })
  }

  /** What an earlier life read and did not deal with. */
  #replay(volume: string): void {
    for (const batch of this.#log.unsettled(EVENT_BYTES_MAX)) {
      const found = this.#places.of(batch, performance.now(), () => {})
      this.#places.tellNameless(found)
      const events = found.get(volume)
      if (events !== undefined)
        this.#post({ kind: 'events', volumes: [[volume, events]], pins: [], head: this.#log.head, own: [], ownPins: [] })
    }
  }

  /** What has no name yet to be told, to the volumes that there are. */
  #tellHeld(): void {
    const found = new Map<string, WatchEvent[]>()
    this.#places.tellNameless(found)
    if (found.size > 0) this.#post({ kind: 'events', volumes: [...found], pins: [], head: this.#log.head, own: [], ownPins: [] })
  }

  #round(): void {
    const fences = this.#fences
    this.#fences = []
    const found = new Map<string, WatchEvent[]>()
    this.#own = []
    this.#ownPins = []
    let bytes = 0
    let isAtEnd = false
    while (!isAtEnd && bytes < ROUND_BYTES_MAX) {
      const batch = this.#log.read(this.#data.names, EVENT_BYTES_MAX)
      if (batch === undefined) {
        isAtEnd = true
        break
      }
      bytes += batch.length
      for (const [volume, events] of this.#places.of(batch, performance.now(), (name) => this.#own.push(name)))
        for (const event of events) tell(found, volume, event)
    }
    const { pins, isDrained } = this.#readPins(found)
    const isToTell = found.size + pins.length + this.#own.length + this.#ownPins.length > 0
    // With whatever is told, for that stands for all that was read before it.
    if (isToTell || fences.length > 0 || this.#namelessWaitMs() === 0) this.#places.tellNameless(found)
    if (isToTell || found.size > 0) {
      this.#post({ kind: 'events', volumes: [...found], pins, head: this.#log.head, own: this.#own, ownPins: this.#ownPins })
    }
    // A fence asked for more than was read in one round is answered by a later one.
    if (isAtEnd) for (const id of fences) this.#post({ kind: 'fenced', id, isBehind: !isDrained, closedBeforeNs: this.#closedBeforeNs })
    else this.#fences.unshift(...fences)
    if (fences.length === 0 && bytes > 0 && bytes < EVENT_BYTES_MAX / 2) poll([this.#data.wakeup], NAP_MS)
  }

  /** How much longer what has no name may wait; -1 where there is nothing. */
  #namelessWaitMs(): number {
    const waitedMs = this.#places.namelessMs(performance.now())
    return waitedMs === undefined ? -1 : Math.max(0, Math.ceil(NAMELESS_HOLD_MS - waitedMs))
  }

  #readPins(found: Map<string, WatchEvent[]>): { readonly pins: PinnedVersion[]; readonly isDrained: boolean } {
    const pins: PinnedVersion[] = []
    if (this.#isExpecting) return { pins, isDrained: false }
    for (let free = this.#freeSlots(); free > 0; free = this.#freeSlots()) {
      this.#log.readingPins(true)
      let length: number
      try {
        length = readSync(this.#data.pins, this.#pinBytes, 0, Math.min(free, PINS_READ_MAX) * PIN_EVENT_BYTES, null)
      } catch (error) {
        this.#log.readingPins(false)
        const errno = errnoOf(error)
        if (errno === 'EAGAIN') return { pins, isDrained: true }
        if (errno === 'EINTR') continue
        // The kernel forgets an event that it could not open a descriptor for.
        for (const volume of this.#places.names) tell(found, volume, missed(`a closed file could not be opened: ${reasonOf(error)}`))
        return { pins, isDrained: false }
      }
      for (const event of fanotifyEvents(this.#pinBytes.subarray(0, length))) {
        const pin = this.#pin(event, found)
        if (pin !== undefined) pins.push(pin)
      }
      this.#log.readingPins(false)
    }
    return { pins, isDrained: false }
  }

  /** Keeps the version if it is of a volume. */
  #pin({ fd, pid, mask }: FanotifyEvent, found: Map<string, WatchEvent[]>): PinnedVersion | undefined {
    if (fd < 0) {
      if ((mask & EVENT.overflow) !== 0)
        for (const volume of this.#places.names) tell(found, volume, missed('the kernel dropped closed files: its queue overflowed'))
      return undefined
    }
    const place = this.#pinPlace(fd, pid)
    const slot = place === undefined ? -1 : this.#takeSlot()
    if (place === undefined || slot < 0) {
      closeSync(fd)
      return undefined
    }
    this.#log.holdPin(slot, { path: place.absolute, inode: place.inode, ms: Date.now() })
    return { volume: place.volume, path: place.path, fd, slot, writer: this.#writers.writer(pid, performance.now()) }
  }

  #pinPlace(fd: number, pid: number) {
    const stats = fstatSync(fd, { bigint: true })
    if (stats.mtimeNs > this.#closedBeforeNs && stats.mtimeNs <= BigInt(Date.now()) * 1_000_000n) this.#closedBeforeNs = stats.mtimeNs
    if (pid === this.#data.ownPid) {
      this.#ownPins.push(stats.ino)
      return undefined
    }
    if ((Number(stats.mode) & KIND_MASK) !== REGULAR) return undefined
    const shown = nameOfOpen(fd)
    // Such a file is only captured as it is when it is looked at.
    if (shown === undefined) return undefined
    const absolute = shown.endsWith(DELETED) ? shown.slice(0, -DELETED.length) : shown
    // A file that never had a name; when it gets one, that is an event of its own.
    if (absolute.endsWith(`/#${stats.ino}`)) return undefined
    const place = this.#places.placeAt(absolute)
    return place === undefined ? undefined : { ...place, absolute, inode: stats.ino }
  }

  #takeSlot(): number {
    for (let slot = 0; slot < PINS_OPEN_MAX; slot++) if (Atomics.compareExchange(this.#slots, slot, 0, 1) === 0) return slot
    return -1
  }

  #post(report: FanotifyReport): void {
    port.postMessage(report, [])
  }
}

new Reader().run()
