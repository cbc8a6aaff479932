/**
 * Keeps one copy at what was committed to the repository, at its own pace.
 *
 * Order, in every round: key slots, then the bytes of packs, then those of segments, each up to one commit. So a copy is a
 * repository at any moment: a crash or an outage leaves a phantom in it, never a hole. Invariant: what a copy is said to hold was
 * found by listing it, or written since then; the cursor may lag, it never leads. It prevents an acknowledgement for what a copy
 * once had.
 */
import { setTimeout } from 'node:timers/promises'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import type { Reflected } from './catalog.ts'
import { CopyInventory, type Holding } from './copy-inventory.ts'
import { Follow } from './follow.ts'
import { COPIED_KINDS, type Copy, fileOf, nameOf, PIECE_BYTES } from './repository/copy.ts'
import { Lease, type Writer } from './repository/copy-lease.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import { LocalFile } from './repository/local-file.ts'
import type { FileExtent, ReadPosition } from './repository/repository.ts'
import { SmallFiles } from './small-files.ts'

/** What of a repository a copier reads. */
export interface CopiedRepository {
  readonly directory: string
  pathOf(kind: FrameFileKind, number: number): string
  extentOf(kind: FrameFileKind, number: number): FileExtent | undefined
}

export type CopyState =
  /** It is being looked at, for the first time since the start. */
  | 'starting'
  | 'current'
  | 'behind'
  /** It cannot be reached or written at the moment. */
  | 'failing'
  /** Another collector writes it: nothing more is written there until somebody decides. */
  | 'forked'

export interface CopyStatus {
  readonly name: string
  readonly url: string
  readonly state: CopyState
  /** Why it is failing or forked. */
  readonly reason: string | undefined
  /** Committed, and not there; undefined where it was not looked at yet. */
  readonly behindBytes: number | undefined
  readonly behindSinceMs: number | undefined
  /** When it last held all that was committed. */
  readonly currentAtMs: number | undefined
}

/** As `status` shows it. */
export interface CopyReport extends CopyStatus {
  /** Every byte of it that is older was verified since then; undefined before the first whole round of scrubbing. */
  readonly verifiedSinceMs: number | undefined
  /** Files that scrubbing has repaired, and that it could not. */
  readonly repaired: number
  readonly damaged: number
}

export interface CopierParts {
  readonly name: string
  readonly url: string
  /** @throws io, not-found while it is away */
  readonly open: (signal: AbortSignal) => Promise<Copy>
  readonly writer: Writer
  readonly repository: CopiedRepository
  /** Up to where is committed. */
  readonly committed: () => Reflected
  readonly removals: Removals
  readonly log: Log
  /** How long more is waited for before a little is written. */
  readonly lingerMs: number
  /** How often a copy with nothing to be written is asked whether it is there. */
  readonly probeMs: number
  readonly onHeld: () => void
  readonly backoffMs?: { readonly first: number; readonly most: number }
}

/** Files that are to be gone from this copy, durably noted. */
export interface Removals {
  readonly pending: readonly string[]
  done(name: string): void
}

const BACKOFF_MS = { first: 1000, most: 60_000 }
/** Looking for a file that was sealed meanwhile, and for key slots. */
const IDLE_MS = 2000
/** A commit that is not there after so long makes it `behind`. */
const BEHIND_MS = 5000
const RELEASE_MS_MAX = 2000

export class Copier {
  readonly #parts: CopierParts
  readonly #follow = new Follow()
  readonly #small: SmallFiles
  #inventory: CopyInventory | undefined
  #held: Reflected | undefined
  #failure: PacsimileError | undefined
  #isForked = false
  #behindSinceMs: number | undefined = Date.now()
  #currentAtMs: number | undefined
  readonly #redo = new Map<string, { readonly kind: FrameFileKind; readonly number: number }>()

  constructor(parts: CopierParts) {
    this.#parts = parts
    this.#small = new SmallFiles(parts.repository.directory)
  }

  /** Something was committed, or is to be removed. */
  hint(): void {
    this.#behindSinceMs ??= Date.now()
    this.#follow.signal()
  }

  /** What the copy has of a file is worth nothing, or is not there: it is written anew. */
  redo(kind: FrameFileKind, number: number): void {
    this.#redo.set(nameOf(kind, number), { kind, number })
    this.hint()
  }

  /** What the copy was given of a file, or was found to have, and is durable; undefined for nothing. */
  holding(kind: FrameFileKind, number: number): Holding | undefined {
    return this.#inventory?.holding(kind, number)
  }

  /** Whether it was reached, and nothing has failed since. */
  get isReachable(): boolean {
    return this.#inventory !== undefined && this.#failure === undefined
  }

  /** Up to where everything is durable there; undefined before it was looked at, and while it is away. */
  get held(): Reflected | undefined {
    return this.#held
  }

  get status(): CopyStatus {
    const { name, url, committed, repository } = this.#parts
    return {
      name,
      url,
      state: this.#state,
      reason: this.#failure?.message,
      behindBytes: this.#inventory?.missingBytes(repository, committed()),
      behindSinceMs: this.#state === 'current' ? undefined : this.#behindSinceMs,
      currentAtMs: this.#currentAtMs,
    }
  }

  get #state(): CopyState {
    if (this.#isForked) return 'forked'
    if (this.#failure !== undefined) return 'failing'
    if (this.#inventory === undefined) return 'starting'
    const isLate = this.#behindSinceMs !== undefined && Date.now() - this.#behindSinceMs > BEHIND_MS
    return isLate || this.#currentAtMs === undefined ? 'behind' : 'current'
  }

  /** Until the signal is given; what hangs then is left behind. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      if (signal.aborted) resolve()
      signal.addEventListener('abort', () => resolve(), { once: true })
    })
    await Promise.race([this.#run(signal), stopped])
    if (this.#state === 'current') await Promise.race([this.#release(), setTimeout(RELEASE_MS_MAX, undefined, { ref: false })])
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { first, most } = this.#parts.backoffMs ?? BACKOFF_MS
    let pauseMs = first
    while (!signal.aborted && !this.#isForked) {
      try {
        await this.#keep(signal, () => {
          pauseMs = first
        })
      } catch (error) {
        if (signal.aborted) return
        this.#fail(asPacsimileError(error, `Copying to ${this.#parts.url}`))
        if (this.#isForked) return
        await setTimeout(pauseMs, undefined, { signal }).catch(() => {})
        pauseMs = Math.min(most, pauseMs * 2)
      }
    }
  }

  #fail(error: PacsimileError): void {
    const { name, log } = this.#parts
    this.#isForked = error.code === 'fenced'
    if (this.#failure === undefined || this.#isForked || this.#failure.message !== error.message)
      log.error(this.#isForked ? 'another collector writes a copy: it is left alone' : 'a copy cannot be written', {
        copy: name,
        code: error.code,
        reason: error.message,
      })
    this.#failure = error
    this.#held = undefined
    this.#behindSinceMs ??= Date.now()
  }

  /** One connection to the copy, until something fails. */
  async #keep(signal: AbortSignal, onSuccess: () => void): Promise<void> {
    const { repository, writer, committed, name, log } = this.#parts
    await using copy = await this.#parts.open(signal)
    if (!(await this.#small.isCopy(copy))) throw new PacsimileError('not-found', `${copy.url} has no repository.json any more`)
    const lease = await Lease.take(copy, writer)
    await copy.clear?.()
    const inventory = await CopyInventory.take(copy, signal)
    await inventory.reconcile(copy, repository, committed(), this.#inventory)
    this.#inventory = inventory
    this.#small.forget()
    let probedMs = performance.now()
    while (!signal.aborted) {
      if (performance.now() - probedMs >= this.#parts.probeMs) {
        await lease.check()
        probedMs = performance.now()
      }
      await lease.renew()
      for (const [name, { kind, number }] of this.#redo) {
        // Until the end of this round.
        this.#held = undefined
        await copy.remove(name)
        inventory.forget(kind, number)
        this.#redo.delete(name)
      }
      await this.#small.bring(copy)
      const to = committed()
      const sinceMs = Date.now()
      for (const kind of COPIED_KINDS) await this.#bring(copy, inventory, kind, kind === 'pack' ? to.packs : to.segments, signal)
      if (signal.aborted) return
      // Last: what was moved out of the files that go is in others, which are there by now.
      await this.#remove(copy, inventory)
      this.#reached(to, sinceMs)
      if (this.#failure !== undefined) log.info('a copy is written again', { copy: name })
      this.#failure = undefined
      onSuccess()
      this.#parts.onHeld()
      if (this.#behindSinceMs === undefined) await this.#follow.next(IDLE_MS, signal)
      if (this.#behindSinceMs !== undefined && this.#parts.lingerMs > 0)
        await setTimeout(this.#parts.lingerMs, undefined, { signal }).catch(() => {})
    }
  }

  #reached(to: Reflected, sinceMs: number): void {
    const now = this.#parts.committed()
    const isAll =
      now.packs.file === to.packs.file &&
      now.packs.offset === to.packs.offset &&
      now.segments.file === to.segments.file &&
      now.segments.offset === to.segments.offset
    this.#held = to
    this.#behindSinceMs = isAll ? undefined : sinceMs
    this.#currentAtMs = sinceMs
  }

  /** Files of a kind, in the order of their numbers, up to a place. */
  async #bring(copy: Copy, inventory: CopyInventory, kind: FrameFileKind, to: ReadPosition, signal: AbortSignal): Promise<void> {
    for (let number = inventory.firstUnfinished(kind); number <= to.file && !signal.aborted; number++) {
      if (inventory.isFinished(kind, number)) {
        inventory.passed(kind, number, to.file)
        continue
      }
      const extent = number === to.file ? growing(to.offset) : this.#parts.repository.extentOf(kind, number)
      // What the repository itself lacks is nothing that a copy could be given.
      if (extent !== undefined && extent.bytes > 0) await this.#bringFile(copy, inventory, kind, number, extent, signal)
      if (extent?.state !== 'sealing') inventory.passed(kind, number, to.file)
    }
  }

  async #bringFile(
    copy: Copy,
    inventory: CopyInventory,
    kind: FrameFileKind,
    number: number,
    { bytes, state }: FileExtent,
    signal: AbortSignal,
  ): Promise<void> {
    const name = nameOf(kind, number)
    let at = inventory.bytesOf(kind, number)
    if (at >= bytes && state !== 'sealed') return
    await using file = await LocalFile.open(this.#parts.repository.pathOf(kind, number), bytes)
    if (state === 'sealed') {
      // Its mode may be older than the durability of its end, after a crash.
      await file.sync()
      await copy.finish(name, file, signal)
      inventory.wrote(kind, number, bytes, true)
      return
    }
    while (at < bytes) {
      signal.throwIfAborted()
      const piece = await file.read(at, Math.min(PIECE_BYTES, bytes - at))
      if (piece.length === 0) throw new PacsimileError('io', `${name} of the repository ends at ${at} of ${bytes} bytes`)
      await copy.append(name, at, piece)
      at += piece.length
      inventory.wrote(kind, number, at, false)
    }
  }

  async #remove(copy: Copy, inventory: CopyInventory): Promise<void> {
    const { removals, repository } = this.#parts
    const isGone = (name: string): boolean => {
      const file = fileOf(name)
      return file === undefined || repository.extentOf(file.kind, file.number) === undefined
    }
    // What is in the repository still would be copied again.
    for (const name of removals.pending.filter(isGone)) {
      await copy.remove(name)
      inventory.removed(name)
      removals.done(name)
    }
  }

  /** After an orderly stop another collector may take over without being asked whether it is sure. */
  async #release(): Promise<void> {
    const { open, writer, log, name } = this.#parts
    try {
      await using copy = await open(AbortSignal.timeout(RELEASE_MS_MAX))
      const lease = await Lease.take(copy, writer)
      await lease.release()
    } catch (error) {
      const { code, message } = asPacsimileError(error, 'Releasing a copy')
      log.warn('a copy was not released', { copy: name, code, reason: message })
    }
  }
}

function growing(bytes: number): FileExtent {
  return { bytes, state: 'ended' }
}
