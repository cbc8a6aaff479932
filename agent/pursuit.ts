/**
 * The loop that follows every dirty path, and every version that is held open, to its record: what is due goes to the
 * capture threads, what they found goes to the recorder, and how it ended goes back to settle or pins.
 *
 * Versions held open come first, for the kernel keeps their disk space until they are captured. Invariant: every look that is
 * taken is finished exactly once, whatever happens to it. It prevents a path that is "being looked at" for ever, and a scan
 * or a barrier that waits for it.
 */
import type { ChunkSizes } from '../shared/chunker.ts'
import type { Digest } from '../shared/digest.ts'
import type { Log } from '../shared/log.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import type { Capture, CaptureRequest } from './capture.ts'
import type { Outcome } from './capture-job.ts'
import type { CaptureClient } from './capture-thread.ts'
import { currentNames } from './current-names.ts'
import type { Held } from './held.ts'
import { alone, type Basis, basisOf, examineRequest, type Found, findingOf, pairRequest, pairSides, pinLook, settledBy } from './looks.ts'
import { OpenDatabases } from './open-databases.ts'
import { PIN_ATTEMPTS_MAX, pauseWhileBusy, placedAgain } from './pin-attempts.ts'
import type { Pin, Pins } from './pins.ts'
import type { Place } from './place.ts'
import type { Finding, Recorded, Recorder } from './recorder.ts'
import type { Renames } from './renames.ts'
import type { Settle } from './settle.ts'
import type { Due, Settled } from './settle-entry.ts'
import type { State } from './state.ts'
import type { Volume } from './volume.ts'
import { Alarm, Waiters } from './waiting.ts'

export interface PursuitParts {
  readonly settle: Settle
  readonly pins: Pins
  readonly capture: Capture
  readonly log: Log
  readonly recorder: Recorder
  readonly state: State
  readonly renames: Renames
  readonly held: Held
  readonly volumes: ReadonlyMap<Label, Volume>
  /** What the collector wants; undefined until one was ever met. */
  readonly chunkSizes: () => ChunkSizes | undefined
  /** Another directory is at this place than before: events of what went with that one named no place any more. */
  readonly onReplaced: (place: Place) => void
  /** A file was found decayed that was not known to be. */
  readonly onRotten: (place: Place) => void
  /** The journal is damaged or closed: nothing can be recorded any more. */
  readonly onFailure: (error: unknown) => void
}

/** A look under way. */
interface Pursued {
  readonly look: Due
  readonly pin: Pin | undefined
  readonly volume: Volume
  readonly basis: Basis
}

/** Looks taken at once: their states are fetched together. */
const TAKE_MAX = 64
/** So many files that are being written come before versions that are held open: of those there may be no end, and a file that is never closed has no other turn. */
const WRITTEN_FIRST = 4
/** While more versions than these are held open, only so many looks are under way beside them: most of those must wait for a version anyway. */
const PINS_FIRST = 64
const LOOKS_BESIDE_PINS = 32
/** With so few left, what was held back is looked at again. */
const PINS_FEW = 16

export class Pursuit {
  readonly #parts: PursuitParts
  readonly #alarm = new Alarm()
  readonly #progressed = new Waiters()
  readonly #databases: OpenDatabases
  /** Looks taken and not yet finished. */
  #underWay = 0
  /** Those among them for which nobody waits. */
  #ordinary = 0

  constructor(parts: PursuitParts) {
    this.#parts = parts
    this.#databases = new OpenDatabases(parts)
  }

  /** Something became due, or there is room for more. */
  wake(): void {
    this.#alarm.ring()
    this.#databases.reconsider()
  }

  /** Resolves when the looks under way have ended and nothing that is due now is left, or the signal is given. */
  async drained(signal: AbortSignal): Promise<void> {
    const { settle, pins } = this.#parts
    const isBusy = (): boolean =>
      this.#underWay > 0 ||
      pins.size > 0 ||
      settle.heldSize > 0 ||
      settle.scannedSize > 0 ||
      (settle.nextMs() ?? Number.POSITIVE_INFINITY) <= performance.now()
    while (isBusy() && !signal.aborted) {
      this.wake()
      await this.#progressed.wait(signal)
    }
  }

  /** Resolves when a look has ended, or the signal is given. */
  readonly progressed = (signal: AbortSignal): Promise<void> => this.#progressed.wait(signal)

  /** Resolves when every path and version of the volume that waits now has been dealt with, wherever it is by then, or the signal is given. */
  async settled(volume: Label, signal: AbortSignal): Promise<void> {
    const { settle, pins } = this.#parts
    const waiters = new Waiters()
    for (let moves = -1; settle.moves !== moves && !signal.aborted; ) {
      moves = settle.moves
      let left = 0
      const answered = (): void => {
        left -= 1
        waiters.wake()
      }
      const isDone = (): boolean => left === 0
      this.wake()
      // First, for a version that could not be captured leads to a look at its path.
      await pins.settled(volume, signal)
      left = settle.expectAll(volume, { answered })
      this.wake()
      while (!isDone() && !signal.aborted) await waiters.wait(signal)
    }
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const taken = await this.#takeSome()
      if (taken > 0) continue
      const nextMs = this.#parts.settle.nextMs(this.#mayTake > 0 ? 'all' : 'pressing')
      // Without room or chunk sizes, whoever makes them rings.
      const isReady = nextMs !== undefined && this.#parts.capture.room > 0 && this.#parts.chunkSizes() !== undefined
      await this.#alarm.sleep(isReady ? Math.max(0, nextMs - performance.now()) : undefined, signal)
    }
  }

  async #takeSome(): Promise<number> {
    const { settle, pins, capture, held } = this.#parts
    const sizes = this.#parts.chunkSizes()
    const room = Math.min(TAKE_MAX, capture.room)
    if (sizes === undefined || room === 0) return 0
    const freed = pins.takeFreed()
    const written = settle.take(performance.now(), Math.min(WRITTEN_FIRST, Math.ceil(room / 2)), 'written')
    const taken = pins.take(room - written.length)
    // The kernel had more than may be open at once; now it has not.
    if (pins.size < PINS_FEW && settle.heldSize > 0) settle.release(performance.now())
    const urgent = settle.take(performance.now(), room - written.length - taken.length, 'urgent')
    const left = Math.min(room - written.length - taken.length - urgent.length, this.#mayTake)
    const others = settle.take(performance.now(), left, held.hasRoomForScan && pins.size < PINS_FIRST ? 'all' : 'events')
    const looks = [...written, ...urgent, ...others]
    this.#ordinary += looks.filter(({ isUrgent }) => !isUrgent).length
    this.#underWay += taken.length + looks.length
    await this.#dispatch([...taken.map(pinLook), ...freed, ...looks.filter((look) => !pins.putBehind(look))], taken, sizes)
    return freed.length + taken.length + looks.length
  }

  /** How many looks may be begun now for which nobody waits. */
  get #mayTake(): number {
    return this.#parts.pins.size < PINS_FIRST ? TAKE_MAX : LOOKS_BESIDE_PINS - this.#ordinary
  }

  /** The first of the looks are those of `pins`. */
  async #dispatch(looks: readonly Due[], pins: readonly Pin[], sizes: ChunkSizes): Promise<void> {
    if (looks.length === 0) return
    const { state, capture, held, volumes } = this.#parts
    const { removals, applied } = state
    const known = await state.atMany(looks)
    for (const volume of volumes.values()) {
      const { root } = volume
      const requests: [CaptureRequest, CaptureClient][] = []
      for (const [i, look] of looks.entries()) {
        if (look.volume !== volume.name) continue
        const pursued = { look, pin: pins[i], volume, basis: basisOf(look, known[i], { removals, applied }) }
        if (root === undefined || volume.isIgnored(look.path)) this.#finish(pursued, { kind: 'done' }, false)
        else requests.push([examineRequest(look, known[i], held, pins[i]?.fd), this.#client(pursued)])
      }
      if (root !== undefined && requests.length > 0) capture.dispatch(root, sizes, requests)
    }
  }

  #client(pursued: Pursued): CaptureClient {
    return {
      taken: ({ digest }, stored) => {
        const { pinned, takings } = pursued.basis
        if (pinned.has(digest)) return undefined
        pinned.add(digest)
        const taking = this.#parts.held.keep(digest, stored, pursued.look.origin, performance.now())
        if (taking !== undefined) takings.push(taking)
        return taking
      },
      ended: (outcome) => void this.#end(pursued, outcome).catch((error: unknown) => this.#parts.onFailure(error)),
    }
  }

  async #end(pursued: Pursued, outcome: Outcome): Promise<void> {
    const { look, volume, basis, pin } = pursued
    switch (outcome.kind) {
      case 'version':
      case 'gone':
      case 'same':
      case 'still-open':
        volume.noteReadable(look.path)
        if (outcome.kind !== 'same' || look.isDeep) volume.noteSound(look.path)
        if (isIgnored(pursued, outcome)) break
        if (outcome.kind === 'gone' && this.#mustWait(pursued, outcome.topmost)) {
          await this.#waitForDatabases(pursued, outcome.topmost)
          return
        }
        await this.#record(pursued, [{ basis, outcome: this.#databases.isAhead(look) ? alone(look, outcome) : outcome }], outcome)
        return
      case 'paired':
        if (pin === undefined) await this.#pair(pursued, outcome.base)
        else this.#lookInstead(pursued)
        return
      case 'pair':
        throw new TypeError('only a pair job ends with a pair')
      case 'root-lost':
        volume.lose(outcome.reason)
        break
      case 'rotten':
        volume.noteReadable(look.path)
        if (volume.noteRotten(look.path)) this.#parts.onRotten(look)
        break
      case 'unreadable':
        volume.noteUnreadable(look.path, outcome.reason)
        break
      case 'busy':
        if (pin !== undefined) {
          const pauseMs = pauseWhileBusy(pin, this.#parts.pins)
          if (pauseMs !== undefined) {
            this.#parts.held.unpin(basis.pinned)
            const again = (): Promise<void> => this.#pinAgain(pursued, pin).catch((error: unknown) => this.#parts.onFailure(error))
            setTimeout(() => void again(), pauseMs)
          } else this.#lookInstead(pursued)
          return
        }
        break
      case 'foreign':
      case 'fetched':
        break
    }
    this.#parts.held.unpin(basis.pinned)
    this.#finish(pursued, outcome.kind === 'busy' ? { kind: 'busy', isWritten: true } : { kind: 'done' }, false)
  }

  #mustWait({ look, pin, basis }: Pursued, topmost: RelativePath): boolean {
    // It ends its path alone: where nothing was recorded, such as where a directory was moved on, it ends nothing.
    if (look.isUrgent && basis.known === undefined) return false
    const isOwn = pin === undefined && look.origin === 'event' && look.waitedFor !== topmost
    return isOwn && this.#databases.isAhead(look)
  }

  /** What was found gone is looked at again then: it may have come back. Until then it is under way, but in no other look's place. */
  async #waitForDatabases({ look, ...pursued }: Pursued, topmost: RelativePath): Promise<void> {
    const count = look.isUrgent ? 0 : 1
    this.#ordinary -= count
    this.wake()
    // Whoever needs it recorded need not wait to learn that it is not there.
    if (look.isUrgent) this.#parts.recorder.looked(look)
    const isCaptured = await this.#databases.captured(look)
    this.#ordinary += count
    this.#finish({ look, ...pursued }, { kind: 'busy', waitedFor: isCaptured ? topmost : undefined }, false)
  }

  /** The version that was held open is not to be captured through it: its path is looked at as any other. */
  #lookInstead(pursued: Pursued): void {
    const { volume, path } = pursued.look
    this.#parts.held.unpin(pursued.basis.pinned)
    this.#parts.settle.changed({ volume, path }, performance.now(), { isSure: true, writer: pursued.look.writer })
    this.#databases.noteClosed({ volume, path })
    this.#finish(pursued, { kind: 'done' }, false)
  }

  /** Both files of a database, one pair at a time: a later one must not be recorded before an earlier one. */
  async #pair(pursued: Pursued, base: RelativePath): Promise<void> {
    const { state, capture, held } = this.#parts
    const { look, volume, basis } = pursued
    const sizes = this.#parts.chunkSizes()
    const place = { volume: volume.name, path: base }
    held.unpin(basis.pinned)
    if (volume.root === undefined || sizes === undefined || !this.#databases.begin(place)) {
      this.#finish(pursued, { kind: volume.root === undefined ? 'done' : 'busy' }, false)
      return
    }
    const { removals, applied } = state
    const places = pairSides(volume.name, base)
    const known = await state.atMany(places)
    const [baseBasis, walBasis] = places.map((place, i) => basisOf(place, known[i], { removals, applied }))
    if (baseBasis === undefined || walBasis === undefined) throw new TypeError('a pair has two sides')
    const client: CaptureClient = {
      ...this.#client({ ...pursued, basis: baseBasis }),
      ended: (outcome) => {
        const ended = this.#endPair(pursued, [baseBasis, walBasis], outcome).finally(() =>
          this.#databases.end(place, outcome.kind === 'pair'),
        )
        ended.catch((error: unknown) => this.#parts.onFailure(error))
      },
    }
    capture.dispatch(volume.root, sizes, [[pairRequest(places, known, held, look.origin), client]])
  }

  async #endPair(pursued: Pursued, [base, wal]: readonly [Basis, Basis], outcome: Outcome): Promise<void> {
    if (outcome.kind !== 'pair') {
      await this.#end({ ...pursued, basis: base }, outcome)
      return
    }
    pursued.volume.noteReadable(pursued.look.path)
    // Whatever it names was written, and closed, before it was read.
    await this.#databases.filesRecorded()
    // What was shipped for either side is let go with the second one, when both are recorded.
    const parts = [
      { basis: { ...base, pinned: new Set<Digest>() }, outcome: outcome.base },
      { basis: { ...wal, pinned: base.pinned }, outcome: outcome.wal },
    ]
    await this.#record(pursued, parts, outcome)
  }

  async #record(pursued: Pursued, parts: readonly Found[], outcome: Outcome): Promise<void> {
    const { held, recorder } = this.#parts
    const { look, pin } = pursued
    const isLast = pin !== undefined && pin.attempts >= PIN_ATTEMPTS_MAX
    const findings = parts.map((part) => findingOf(look, part, pin === undefined ? undefined : { isLast }))
    const unpin = (): void => {
      for (const { basis } of parts) held.unpin(basis.pinned)
    }
    let recorded: readonly Recorded[]
    try {
      // Content that goes to the spool must be there before the record that names it.
      await Promise.all(parts.flatMap(({ basis }) => basis.takings))
      recorded = await recorder.recordTogether(findings)
    } catch (error) {
      unpin()
      this.#finish(pursued, { kind: 'done' }, false)
      throw error
    }
    for (const [i, { basis, outcome: found }] of parts.entries())
      if (recorded[i]?.kind !== 'recorded' || found.kind !== 'version') held.unpin(basis.pinned)
    if (recorded.some(({ kind }) => kind === 'outdated') && pin !== undefined && !isLast) {
      pin.attempts += 1
      await this.#pinAgain(pursued, pin)
      return
    }
    const hasChanged = recorded.some(({ kind }) => kind === 'recorded')
    // The file may have lost this name since, and whoever looked for it under another one could not know of this version.
    if (pin !== undefined && hasChanged && !this.#parts.pins.isFollowed(pin))
      this.#parts.settle.changed(pin, performance.now(), { isSure: true })
    try {
      // First, for whoever waits for this look waits for what it leads to.
      if (look.origin === 'event') await this.#spread(look, recorded)
    } finally {
      this.#finish(pursued, settledBy(outcome, recorded), hasChanged)
    }
  }

  /** Its directory may have been renamed since it was closed. */
  async #pinAgain({ volume }: Pursued, pin: Pin): Promise<void> {
    await placedAgain(pin, volume.root, this.#parts.renames)
    this.#underWay -= 1
    this.#parts.pins.again(pin)
    this.wake()
  }

  #finish({ look, pin }: Pursued, settled: Settled, hasChanged: boolean): void {
    const { settle, recorder, pins } = this.#parts
    this.#underWay -= 1
    if (pin === undefined && !look.isUrgent) this.#ordinary -= 1
    if (pin === undefined) for (const ticket of settle.finished(look, settled, performance.now())) ticket.answered(hasChanged)
    else pins.finished(pin)
    // Also a look that must be repeated: what it waits for may itself wait for this directory.
    if (pin === undefined) recorder.looked(look)
    this.#progressed.wake()
    this.wake()
  }

  /** What a change says of other paths: the directory's times are others, and so are those of the file's other names. */
  async #spread(look: Place, recorded: readonly Recorded[]): Promise<void> {
    const { settle, onReplaced } = this.#parts
    const { volume } = look
    // First what is named by its path: a directory may get another name while one waits.
    for (const { touched, isReplaced } of recorded) {
      if (isReplaced) onReplaced(look)
      if (touched !== undefined) settle.childrenChanged({ volume, path: touched }, performance.now())
    }
    for (const inode of recorded.flatMap(({ inodes }) => inodes)) {
      for (const path of await currentNames(this.#parts, volume, [inode])) {
        if (path !== look.path) settle.changed({ volume, path }, performance.now())
      }
    }
    if (recorded.some(({ touched, inodes }) => touched !== undefined || inodes.length > 0)) this.wake()
  }
}

/** What a path is shows only now: a rule may concern directories, or spare them. What went away is what it was. */
function isIgnored({ look, basis, volume }: Pursued, outcome: Finding['outcome']): boolean {
  const kind = outcome.kind === 'version' ? outcome.version.kind : basis.known?.version.kind
  return kind !== undefined && volume.isIgnored(look.path, kind === 'directory')
}
