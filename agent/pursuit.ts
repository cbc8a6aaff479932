/**
 * The loop that follows every dirty path to its record: what is due goes to the capture threads, what they found goes to
 * the recorder, and how it ended goes back to settle.
 *
 * Invariant: every look that is taken from settle is finished there exactly once, whatever happens to it. It prevents a
 * path that is "being looked at" for ever, and a scan or a barrier that waits for it.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { ChunkSizes } from '../shared/chunker.ts'
import type { Digest } from '../shared/digest.ts'
import type { Label } from '../shared/path.ts'
import type { Capture, CaptureRequest } from './capture.ts'
import type { Outcome } from './capture-job.ts'
import type { CaptureClient } from './capture-thread.ts'
import { identityOf } from './file-stat.ts'
import type { Held } from './held.ts'
import type { Place } from './place.ts'
import type { Finding, Recorded, Recorder } from './recorder.ts'
import type { Settle } from './settle.ts'
import type { Due, Settled } from './settle-entry.ts'
import type { Known, State } from './state.ts'
import type { Volume } from './volume.ts'
import { Alarm, Waiters } from './waiting.ts'

export interface PursuitParts {
  readonly settle: Settle
  readonly capture: Capture
  readonly recorder: Recorder
  readonly state: State
  readonly held: Held
  readonly volumes: ReadonlyMap<Label, Volume>
  /** What the collector wants; undefined until one was ever met. */
  readonly chunkSizes: () => ChunkSizes | undefined
  /** The journal is damaged or closed: nothing can be recorded any more. */
  readonly onFailure: (error: unknown) => void
}

/** A look under way, with what it rests on and what it has brought so far. */
interface Pursued {
  readonly look: Due
  readonly volume: Volume
  readonly knownSeq: number | undefined
  readonly removals: number
  readonly pinned: Set<Digest>
  readonly takings: readonly Promise<void>[]
}

/** Looks taken at once: their states are fetched together. */
const TAKE_MAX = 64

export class Pursuit {
  readonly #parts: PursuitParts
  readonly #alarm = new Alarm()
  readonly #progressed = new Waiters()
  /** Looks taken and not yet finished. */
  #underWay = 0

  constructor(parts: PursuitParts) {
    this.#parts = parts
  }

  /** Something became due, or there is room for more. */
  wake(): void {
    this.#alarm.ring()
  }

  /** Resolves when the looks under way have ended and nothing that is due now is left, or the signal is given. */
  async drained(signal: AbortSignal): Promise<void> {
    const { settle } = this.#parts
    const isBusy = (): boolean =>
      this.#underWay > 0 || settle.scannedSize > 0 || (settle.nextMs() ?? Number.POSITIVE_INFINITY) <= performance.now()
    while (isBusy() && !signal.aborted) {
      this.wake()
      await this.#progressed.wait(signal)
    }
  }

  /** Resolves when a look has ended, or the signal is given. */
  progressed(signal: AbortSignal): Promise<void> {
    return this.#progressed.wait(signal)
  }

  async run(signal: AbortSignal): Promise<void> {
    const { settle } = this.#parts
    while (!signal.aborted) {
      const taken = await this.#takeSome()
      if (taken > 0) continue
      const nextMs = settle.nextMs()
      // Without room or chunk sizes, whoever makes them rings.
      const isReady = this.#parts.capture.room > 0 && this.#parts.chunkSizes() !== undefined
      await this.#alarm.sleep(nextMs === undefined || !isReady ? undefined : Math.max(0, nextMs - performance.now()), signal)
    }
  }

  async #takeSome(): Promise<number> {
    const { settle, capture, held, state } = this.#parts
    const sizes = this.#parts.chunkSizes()
    const room = Math.min(TAKE_MAX, capture.room)
    if (sizes === undefined || room === 0) return 0
    const looks = settle.take(performance.now(), room, held.hasRoomForScan)
    if (looks.length === 0) return 0
    this.#underWay += looks.length
    const { removals } = state
    const known = await state.atMany(looks)
    for (const volume of this.#parts.volumes.values()) {
      const { root } = volume
      const requests: [CaptureRequest, CaptureClient][] = []
      for (const [i, look] of looks.entries()) {
        if (look.volume !== volume.name) continue
        if (root === undefined) this.#finish(look, { kind: 'done' }, false)
        else requests.push([this.#request(look, known[i]), this.#client(look, known[i], removals, volume)])
      }
      if (root !== undefined && requests.length > 0) capture.dispatch(root, sizes, requests)
    }
    return looks.length
  }

  #request(look: Due, known: Known | undefined): CaptureRequest {
    return {
      kind: 'examine',
      path: look.path,
      known: known === undefined ? undefined : identityOf(known),
      storedDigests: known === undefined ? '' : storedDigests(known),
      asIs: look.asIs,
      isDeep: look.isDeep,
      shipBytesMax: this.#parts.held.shipBytesMax(look.origin),
    }
  }

  #client(look: Due, known: Known | undefined, removals: number, volume: Volume): CaptureClient {
    const { held } = this.#parts
    const pinned = new Set<Digest>()
    const takings: Promise<void>[] = []
    return {
      taken: ({ digest }, stored) => {
        if (pinned.has(digest)) return undefined
        pinned.add(digest)
        const taking = held.keep(digest, stored, look.origin, performance.now())
        if (taking !== undefined) takings.push(taking)
        return taking
      },
      ended: (outcome) => void this.#end({ look, knownSeq: known?.seq, removals, pinned, takings, volume }, outcome),
    }
  }

  async #end(pursued: Pursued, outcome: Outcome): Promise<void> {
    const { look, volume, pinned } = pursued
    switch (outcome.kind) {
      case 'version':
      case 'gone':
      case 'same':
      case 'still-open':
        volume.noteReadable(look.path)
        await this.#record(pursued, outcome)
        return
      case 'root-lost':
        volume.lose(outcome.reason)
        break
      case 'unreadable':
        volume.noteUnreadable(look.path, outcome.reason)
        break
      case 'busy':
      case 'foreign':
      case 'fetched':
        break
    }
    this.#parts.held.unpin(pinned)
    this.#finish(look, { kind: outcome.kind === 'busy' ? 'busy' : 'done' }, false)
  }

  async #record({ look, knownSeq, removals, pinned, takings }: Pursued, outcome: Finding['outcome']): Promise<void> {
    const { held, recorder } = this.#parts
    const { volume, path } = look
    let recorded: Recorded
    try {
      // Content that goes to the spool must be there before the record that names it.
      if (takings.length > 0) await Promise.all(takings)
      recorded = await recorder.record({ volume, path, outcome, knownSeq, removals, pinned, hasWaited: false })
    } catch (error) {
      held.unpin(pinned)
      this.#finish(look, { kind: 'done' }, false)
      this.#parts.onFailure(error)
      return
    }
    if (recorded.kind !== 'recorded') held.unpin(pinned)
    this.#finish(look, settledBy(outcome, recorded), recorded.kind === 'recorded')
    if (look.origin === 'event') await this.#spread(look, recorded).catch((error: unknown) => this.#parts.onFailure(error))
  }

  #finish(look: Place, settled: Settled, hasChanged: boolean): void {
    const { settle, recorder } = this.#parts
    this.#underWay -= 1
    for (const ticket of settle.finished(look, settled, performance.now())) ticket.answered(hasChanged)
    if (settled.kind !== 'busy') recorder.looked(look)
    this.#progressed.wake()
    this.wake()
  }

  /** What a change says of other paths: the directory's times are others, and so are those of the file's other names. */
  async #spread(look: Place, { touched, inodes }: Recorded): Promise<void> {
    const { settle, state } = this.#parts
    if (touched !== undefined) settle.childrenChanged({ volume: look.volume, path: touched }, performance.now())
    for (const inode of inodes) {
      for (const path of await state.namesOf(look.volume, inode)) {
        if (path !== look.path) settle.changed({ volume: look.volume, path }, performance.now())
      }
    }
    if (touched !== undefined || inodes.length > 0) this.wake()
  }
}

function settledBy(outcome: Finding['outcome'], recorded: Recorded): Settled {
  if (recorded.kind === 'outdated') return { kind: 'busy' }
  if (outcome.kind === 'still-open') return { kind: 'still-open' }
  if (outcome.kind !== 'version') return { kind: 'done' }
  const isOpen = outcome.version.kind === 'file' && (outcome.version.consistency === 'unverified' || outcome.version.consistency === 'torn')
  return isOpen ? { kind: 'captured-open', durationMs: outcome.durationMs } : { kind: 'captured' }
}

/** The chunks of the last version, whose content is delivered or held already. */
function storedDigests({ version, isLost }: Known): ByteString {
  return version.kind === 'file' && !isLost ? version.chunks.map(({ digest }) => digest).join('') : ''
}
