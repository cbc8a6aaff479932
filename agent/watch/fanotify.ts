/**
 * Watching through fanotify: one name group and one pin group for all volumes of the agent, one mark on each filesystem.
 *
 * The name group says what happened where, the pin group holds closed versions open until they are captured. Both, and the
 * log of what was read from them, are handed to whoever keeps descriptors for this process (descriptor-store.ts).
 * Invariant: a volume is `continuous` only if both groups and the log come from a life that had verified it, with their
 * marks in place. It prevents a restart from being taken for an uninterrupted watch.
 */
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs'
import type { Worker } from 'node:worker_threads'
import type { ByteString } from '../../shared/bytes.ts'
import { errnoOf, PacsimileError, reasonOf } from '../../shared/errors.ts'
import { PINS_OPEN_MAX } from '../../shared/limits.ts'
import type { Log } from '../../shared/log.ts'
import type { DescriptorStore } from '../descriptor-store.ts'
import { startThread } from '../threads.ts'
import { Canary } from './canary.ts'
import {
  filesystemId,
  handleKey,
  markNames,
  markPins,
  type NameReports,
  openHandle,
  openNameGroup,
  openPinGroup,
  openWakeup,
} from './fanotify-calls.ts'
import type { FanotifyOrder, FanotifyReport, FanotifyThreadData, PinnedVersion } from './fanotify-reports.ts'
import { FanotifyWatcher, NOTHING_KNOWN, refusedFence } from './fanotify-watcher.ts'
import { clearSlot, HintLog } from './hint-log.ts'
import { inspectHints, type LeftHints, lossesLeft } from './left-hints.ts'
import type { Fence, Loss, WatchEvent, Watcher, WatchRequest } from './watcher.ts'

export interface FanotifyOptions {
  readonly stateDir: string
  readonly descriptors: Pick<DescriptorStore, 'take' | 'keep' | 'forget'>
  readonly log: Log
  /** The kernel's default queue, which overflows: for showing what happens then. */
  readonly isQueueLimited: boolean
  /** Whose doing is nobody's change: this process, which writes nothing but canaries. */
  readonly ownPid?: number
}

interface Groups {
  readonly names: number
  readonly reports: NameReports
  readonly pins: number
  readonly hints: number
  /** Of the life before, where there was one. */
  readonly left: LeftHints | undefined
}

export class Fanotify {
  readonly #options: FanotifyOptions
  readonly #groups: Groups
  readonly #wakeup = openWakeup()
  readonly #slots = new Int32Array(new SharedArrayBuffer((PINS_OPEN_MAX + 1) * Int32Array.BYTES_PER_ELEMENT))
  readonly #worker: Worker
  readonly #canary: Canary
  readonly #watchers = new Map<string, FanotifyWatcher>()
  readonly #starting = new Map<string, () => void>()
  /** Directories of volumes that the thread is asked to forget, in their order. */
  readonly #forgetting: number[] = []
  readonly #fences = new Map<number, (fence: Fence) => void>()
  readonly #verified = new Map<string, readonly Loss[]>()
  /** What each volume says is journalled. */
  readonly #settled = new Map<string, number>()
  #lastFence = 0
  #head = 0
  #hasSettled = false
  #failure: PacsimileError | undefined
  #isClosed = false
  #ending: Promise<void> | undefined
  #closing: Promise<void> | undefined
  #hasEnded = false

  private constructor(options: FanotifyOptions, groups: Groups) {
    this.#options = options
    this.#groups = groups
    for (const [volume, losses] of groups.left?.verified ?? []) this.#verified.set(volume, losses)
    const { names, pins, hints } = groups
    const data: FanotifyThreadData = {
      names,
      pins,
      hints,
      wakeup: this.#wakeup,
      slots: this.#slots.buffer,
      ownPid: options.ownPid ?? process.pid,
      expected: [...this.#verified.keys()],
    }
    this.#worker = startThread('watch/fanotify-worker', data)
    this.#worker.on('message', (report: FanotifyReport) => this.#take(report))
    this.#worker.on('error', (error) => this.#fail(reasonOf(error)))
    this.#worker.on('exit', () => this.#fail('its thread ended'))
    this.#canary = new Canary({ stateDir: options.stateDir, fence: () => this.fence(), marks: () => markCount(names) })
  }

  /** @throws an Error with the kernel's `code`: EPERM without CAP_SYS_ADMIN, ENOSYS or EINVAL where the kernel is too old */
  static open(options: FanotifyOptions): Fanotify {
    return new Fanotify(options, adoptGroups(options) ?? openGroups(options))
  }

  /** @throws an Error with the kernel's `code` where the volume's filesystem cannot be watched as a whole */
  async watch({ volume, directory, ignored }: WatchRequest): Promise<Watcher> {
    if (this.#isClosed) throw new PacsimileError('io', 'Watching has ended')
    const root = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
    let filesystem: ByteString
    let wasMarked: boolean
    try {
      filesystem = filesystemId(root)
      tryHandle(root, filesystem)
      wasMarked = this.#mark(root)
    } catch (error) {
      closeSync(root)
      throw error
    }
    const { left } = this.#groups
    const isContinuous = wasMarked && !this.#hasSettled && left?.verified.has(volume) === true
    const losses = isContinuous && left !== undefined ? lossesLeft(left, volume, directory) : undefined
    this.#setVerified(volume, losses)
    const watcher = new FanotifyWatcher({
      volume,
      isContinuous,
      proof: () => this.#canary.proof(filesystem),
      fence: () => this.fence(),
      head: () => this.#head,
      onVerified: (known) => this.#setVerified(volume, known),
      onSettled: (mark) => this.#settle(volume, mark),
      onClose: () => this.#forget(volume, watcher, root, filesystem),
    })
    this.#watchers.get(volume)?.fail(new PacsimileError('internal', `Volume ${volume} is watched twice`))
    this.#watchers.set(volume, watcher)
    this.#settled.set(volume, 0)
    if (losses !== undefined) watcher.take(losses.map((loss) => ({ kind: 'loss', ...loss })))
    const started = new Promise<void>((resolve) => this.#starting.set(volume, resolve))
    this.#order({
      kind: 'watch',
      volume: { name: volume, root, ignored },
      filesystem,
      mount: { fd: root, isPartial: isPartialMount(root) },
      isContinuous,
    })
    this.#canary.add(filesystem, directory)
    await started
    if (this.#failure !== undefined) throw this.#failure
    return watcher
  }

  /** @returns whether both marks were there before */
  #mark(root: number): boolean {
    const { names, pins, reports } = this.#groups
    const before = markCount(names) + markCount(pins)
    markNames(names, reports, root)
    markPins(pins, root)
    return markCount(names) + markCount(pins) === before
  }

  #forget(volume: string, watcher: FanotifyWatcher, root: number, filesystem: ByteString): void {
    this.#canary.remove(filesystem)
    if (this.#watchers.get(volume) !== watcher || this.#isClosed || this.#failure !== undefined) {
      // Nothing is read any more: the next process goes on with what is known of the volume.
      closeSync(root)
      return
    }
    this.#watchers.delete(volume)
    this.#settled.delete(volume)
    this.#forgetting.push(root)
    this.#order({ kind: 'forget', volume })
    // What happens from here on is told to nobody.
    this.#setVerified(volume, undefined)
  }

  /** Resolves when all that happened before the call has been told. */
  fence(): Promise<Fence> {
    if (this.#failure !== undefined || this.#isClosed) return refusedFence()
    const id = ++this.#lastFence
    return new Promise((resolve) => {
      this.#fences.set(id, resolve)
      this.#order({ kind: 'fence', id })
    })
  }

  #order(order: FanotifyOrder): void {
    this.#worker.postMessage(order, [])
    this.#wake()
  }

  #wake(): void {
    const one = Buffer.alloc(8)
    one.writeBigUInt64LE(1n)
    writeSync(this.#wakeup, one)
  }

  #take(report: FanotifyReport): void {
    switch (report.kind) {
      case 'watching':
        this.#starting.get(report.volume)?.()
        this.#starting.delete(report.volume)
        return
      case 'forgotten':
        closeSync(this.#forgetting.shift() ?? -1)
        return
      case 'fenced':
        this.#fences.get(report.id)?.(report)
        this.#fences.delete(report.id)
        return
      case 'events':
        this.#head = report.head
        this.#canary.seen(report.own, report.ownPins, Atomics.load(this.#slots, PINS_OPEN_MAX) === 1)
        this.#deliver(report.volumes, report.pins)
    }
  }

  /** Versions first: what an event says of a name is newer than they are. */
  #deliver(volumes: readonly (readonly [string, readonly WatchEvent[]])[], pins: readonly PinnedVersion[]): void {
    for (const pin of pins) {
      const release = (fate?: 'abandoned'): void => this.#release(pin, fate)
      const watcher = this.#watchers.get(pin.volume)
      if (watcher === undefined) release()
      else watcher.take([{ kind: 'pin', path: pin.path, fd: pin.fd, writer: pin.writer, release }])
    }
    for (const [volume, events] of volumes) this.#watchers.get(volume)?.take(events)
  }

  #release({ fd, slot }: PinnedVersion, fate: 'abandoned' | undefined): void {
    closeSync(fd)
    // At a stop the next process learns of it from there, and says what is lost.
    if (fate === undefined || !this.#isClosed) clearSlot(this.#groups.hints, slot)
    Atomics.store(this.#slots, slot, 0)
    if (this.#hasEnded) this.#closeHintsIfFree()
    else if (Atomics.exchange(this.#slots, PINS_OPEN_MAX, 0) === 1) this.#wake()
  }

  #setVerified(volume: string, losses: readonly Loss[] | undefined): void {
    const before = this.#verified.get(volume)
    if (before === losses || (before?.length === 0 && losses?.length === 0)) return
    if (losses === undefined) this.#verified.delete(volume)
    else this.#verified.set(volume, losses)
    this.#order({ kind: 'verified', volumes: this.#verified })
  }

  #settle(volume: string, mark: number): void {
    this.#settled.set(volume, mark)
    this.#hasSettled = true
    this.#order({ kind: 'settled', mark: Math.min(...this.#settled.values()) })
  }

  #fail(reason: string): void {
    if (this.#isClosed) return
    this.#failure ??= new PacsimileError('io', `Watching failed: ${reason}`)
    for (const watcher of this.#watchers.values()) watcher.fail(this.#failure)
    this.#answerAll()
  }

  /** Nobody else answers any more. */
  #answerAll(): void {
    for (const resolve of this.#fences.values()) resolve(NOTHING_KNOWN)
    for (const resolve of this.#starting.values()) resolve()
    this.#fences.clear()
    this.#starting.clear()
  }

  /** Whether the thread that reads has failed: the groups must be opened anew. */
  get hasFailed(): boolean {
    return this.#failure !== undefined
  }

  /**
   * Nothing more is read: the kernel goes on queueing for whoever holds the groups. Resolves when all that was read has been
   * told; watchers still hand it on.
   */
  end(): Promise<void> {
    this.#ending ??= this.#endReading()
    return this.#ending
  }

  async #endReading(): Promise<void> {
    this.#isClosed = true
    this.#canary.close()
    if (this.#failure === undefined) {
      const ended = new Promise((resolve) => this.#worker.once('exit', resolve))
      this.#order({ kind: 'end' })
      await ended
    }
    this.#answerAll()
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    await this.end()
    for (const watcher of this.#watchers.values()) await watcher.close()
    if (this.#failure !== undefined) this.#options.descriptors.forget(Object.keys(NAMES))
    this.#hasEnded = true
    for (const root of this.#forgetting.splice(0)) closeSync(root)
    for (const fd of [this.#groups.names, this.#groups.pins, this.#wakeup]) closeSync(fd)
    this.#closeHintsIfFree()
  }

  /** Versions in hand are noted there until they are recorded, also after nothing is read any more. */
  #closeHintsIfFree(): void {
    if (this.#slots.subarray(0, PINS_OPEN_MAX).every((used) => used === 0)) closeSync(this.#groups.hints)
  }
}

/** Under which the descriptors are kept. */
const NAMES = { 'names-modern': true, 'names-compatible': true, 'pins': true, 'hints': true } as const

function adoptGroups({ descriptors, log }: FanotifyOptions): Groups | undefined {
  const [modern, compatible, pins, hints] = Object.keys(NAMES).map((name) => descriptors.take(name))
  const names = modern ?? compatible
  const left = hints === undefined ? undefined : inspectHints(hints)
  if (names === undefined || pins === undefined || hints === undefined || left === undefined) {
    for (const fd of [modern, compatible, pins, hints]) if (fd !== undefined) closeSync(fd)
    descriptors.forget(Object.keys(NAMES))
    return undefined
  }
  log.info('watching goes on where the process before this one ended', { volumes: [...left.verified.keys()] })
  return { names, reports: modern === undefined ? 'compatible' : 'modern', pins, hints, left }
}

function openGroups({ descriptors, isQueueLimited }: FanotifyOptions): Groups {
  const { names, reports } = openNames(!isQueueLimited)
  let pins: number
  try {
    pins = openPinGroup(!isQueueLimited)
  } catch (error) {
    closeSync(names)
    throw error
  }
  const hints = HintLog.create()
  descriptors.keep(`names-${reports}`, names)
  descriptors.keep('pins', pins)
  descriptors.keep('hints', hints)
  return { names, reports, pins, hints, left: undefined }
}

function openNames(isUnlimited: boolean): { readonly names: number; readonly reports: NameReports } {
  try {
    return { names: openNameGroup('modern', isUnlimited), reports: 'modern' }
  } catch (error) {
    if (errnoOf(error) !== 'EINVAL') throw error
    return { names: openNameGroup('compatible', isUnlimited), reports: 'compatible' }
  }
}

/** Marks are listed in fdinfo (proc_pid_fdinfo(5)); one that an unmount dropped is gone from there. */
function markCount(group: number): number {
  return readFileSync(`/proc/self/fdinfo/${group}`, 'latin1').split('fanotify sdev:').length - 1
}

/** Before anything rests on it: events name directories by handles only. @throws what the kernel has against it */
function tryHandle(root: number, filesystem: ByteString): void {
  const key = handleKey(filesystem, `/proc/self/fd/${root}/.`)
  const fd = key === undefined ? undefined : openHandle(root, key)
  if (fd !== undefined) closeSync(fd)
}

/** Whether the mount through which the directory was opened begins below its filesystem's root (proc_pid_mountinfo(5)). */
function isPartialMount(directory: number): boolean {
  const id = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${directory}`, 'latin1'))?.[1]
  const line = readFileSync('/proc/self/mountinfo', 'latin1')
    .split('\n')
    .find((entry) => entry.startsWith(`${id} `))
  return line === undefined || line.split(' ')[3] !== '/'
}
