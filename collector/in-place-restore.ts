/**
 * A restore into a directory that has content: compared first, then staged, then swapped.
 *
 * Everything that is to come is written, verified and durable in the undo place before the first name of the target changes; then names change places, and
 * what they stood for is in the undo place. Invariant: until the steps are written down the target is as it was; from then on they lead either forward or
 * back. It prevents a disk that fills up, or a power cut, from leaving an archive of two halves.
 */
import { randomBytes } from 'node:crypto'
import { realpathSync, statSync } from 'node:fs'
import { sep } from 'node:path'
import { asPacsimileError, errnoOf, PacsimileError } from '../shared/errors.ts'
import { syncDirectory } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import { type RelativePath, ROOT } from '../shared/path.ts'
import type { FileVersion } from '../shared/version.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import { type Comparison, compareInPlace } from './in-place-compare.ts'
import { type InPlaceReport, inPlaceReport } from './in-place-report.ts'
import type { Shortcoming } from './metadata-writer.ts'
import { pathOf, planRestore, type RestorePlan, type RestoreRequest } from './restore-plan.ts'
import { SafeDirectory } from './safe-directory.ts'
import { Staging } from './staging.ts'
import { Swap } from './swap.ts'
import type { SwapStep, SwapSummary } from './swap-steps.ts'
import { TargetHold, UndoPlace } from './undo-place.ts'

export interface InPlaceParts {
  readonly source: HistorySource
  readonly request: RestoreRequest
  /** Told of the content of the target that was read to compare it, in bytes. */
  readonly onRead?: (bytes: number) => void
}

export interface InPlaceResult extends InPlaceReport {
  readonly fromReplica: number
  readonly hardLinks: number
  readonly damaged: boolean
  readonly shortcomings: readonly Shortcoming[]
}

interface Prepared {
  readonly plan: RestorePlan
  readonly entries: readonly ListedEntry[]
  /** Undefined where an earlier run has compared, and its steps are written down. */
  readonly comparison: Comparison | undefined
  readonly place: UndoPlace | undefined
}

export class InPlaceRestore implements AsyncDisposable {
  readonly plan: RestorePlan
  readonly entries: readonly ListedEntry[]
  readonly #parts: InPlaceParts
  readonly #hold: TargetHold
  readonly #prepared: Prepared

  private constructor(parts: InPlaceParts, hold: TargetHold, prepared: Prepared) {
    this.#parts = parts
    this.#hold = hold
    this.#prepared = prepared
    this.plan = prepared.plan
    this.entries = prepared.entries
  }

  /** Compares, and writes nothing. @throws not-found, unfinished, locked, usage, io, and what the source throws */
  static async prepare(parts: InPlaceParts): Promise<InPlaceRestore> {
    const { source, request } = parts
    const hold = await TargetHold.take(request.to)
    try {
      await refuseReplica(source, request)
      const { plan, entries } = await planRestore(source, request)
      const place = unfinishedIn(request, plan)
      if (place?.note.state === 'swapping') return new InPlaceRestore(parts, hold, { plan, entries, comparison: undefined, place })
      const target = new SafeDirectory(request.to)
      const rootMtimeNs = place === undefined ? undefined : BigInt(place.note.rootMtimeNs)
      try {
        const onRead = parts.onRead ?? (() => {})
        const comparison = await compareInPlace({ source, request, plan, entries, target, rootMtimeNs, onRead })
        return new InPlaceRestore(parts, hold, { plan, entries, comparison, place })
      } finally {
        target.close()
      }
    } catch (error) {
      await hold[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#hold[Symbol.asyncDispose]()
  }

  readonly #pathOf = (at: RelativePath): RelativePath => pathOf(at, this.#parts.request, this.plan)

  /** The content that `run` would write. */
  get filesToWrite(): FileVersion[] {
    return (this.#prepared.comparison?.steps ?? []).flatMap((step) =>
      step.kind === 'put' && step.entry.version.kind === 'file' ? [step.entry.version] : [],
    )
  }

  /** What `run` would do. */
  outlook(): InPlaceReport {
    const { comparison, place } = this.#prepared
    if (comparison !== undefined) return inPlaceReport(comparison, comparison.steps, this.#pathOf, this.entries, place)
    const { summary, steps } = (place as UndoPlace).readSteps()
    return inPlaceReport(summary, steps, this.#pathOf, this.entries, place)
  }

  /** Whether there is anything to do. */
  get isNeeded(): boolean {
    return this.#prepared.comparison === undefined || this.#prepared.comparison.steps.length > 0
  }

  /** `onPlace` is told of the undo place as soon as there is one. @throws space, io, and what the source throws */
  async run(
    onWritten: (bytes: number, files: number) => void = () => {},
    onPlace: (id: string) => void = () => {},
  ): Promise<InPlaceResult> {
    const { comparison } = this.#prepared
    const { request } = this.#parts
    const nothing = { bytesToWrite: undefined as number | undefined, fromReplica: 0, hardLinks: 0, damaged: false }
    if (!this.isNeeded && comparison !== undefined)
      return { ...inPlaceReport(comparison, [], this.#pathOf, this.entries, undefined), ...nothing, bytesToWrite: 0, shortcomings: [] }
    const shortcomings: Shortcoming[] = []
    const place = this.#prepared.place ?? this.#makePlace()
    onPlace(place.id)
    let staged = nothing
    if (comparison !== undefined && place.note.state === 'staging') {
      const staging = new Staging({ ...this.#parts, place, comparison, onWritten, isResumed: this.#prepared.place !== undefined })
      const { steps, summary } = await staging.run()
      sync(request.to)
      place.writeSteps(summary, steps)
      place.enter('swapping')
      const { fromReplica, hardLinks, damaged } = staging
      staged = { bytesToWrite: this.outlook().bytesToWrite, fromReplica, hardLinks, damaged }
      shortcomings.push(...staging.shortcomings)
    }
    const { summary, steps } = place.readSteps()
    const { changed, missing } = this.#swap(place, steps, summary, shortcomings)
    sync(request.to)
    place.enter('done', { endedMs: Date.now() })
    return { ...inPlaceReport({ ...summary, missing }, steps, this.#pathOf, this.entries, place), changed, ...staged, shortcomings }
  }

  #swap(
    place: UndoPlace,
    steps: readonly SwapStep[],
    summary: SwapSummary,
    shortcomings: Shortcoming[],
  ): Pick<InPlaceReport, 'changed' | 'missing'> {
    const { setuid, owner, to } = this.#parts.request
    const inVolume = this.#pathOf
    const onShortcoming = (found: Shortcoming): number => shortcomings.push({ ...found, path: inVolume(found.path) })
    try {
      using swap = new Swap({ place, materialize: { setuid, owner, special: true, onShortcoming } })
      swap.forward(steps)
      const troubles = swap.troubles.map((found) => ({ path: inVolume(found.path), cause: 'refused' as const, reason: found.reason }))
      return {
        missing: [...summary.missing, ...troubles],
        changed: swap.changed.map((found) => ({ ...found, path: inVolume(found.path) })),
      }
    } catch (error) {
      throw asPacsimileError(error, `Changing ${to} (\`pacsimile restore undo ${place.id}\` takes back what was done)`)
    }
  }

  #makePlace(): UndoPlace {
    const { request } = this.#parts
    const { plan } = this.#prepared
    UndoPlace.removeHalfMade(request.to)
    const { epoch, seq } = plan.point.position
    return UndoPlace.create(request.to, {
      version: 1,
      id: randomBytes(6).toString('hex'),
      state: 'staging',
      agent: request.agent,
      volume: request.volume,
      path: request.path,
      epoch,
      seq,
      terms: termsOf(request),
      momentMs: plan.momentMs,
      startedMs: Date.now(),
      endedMs: null,
      rootMtimeNs: rootMtime(request.to).toString(),
    })
  }
}

function rootMtime(to: string): bigint {
  try {
    return statSync(to, { bigint: true }).mtimeNs
  } catch (error) {
    throw asPacsimileError(error, `Looking at ${to}`)
  }
}

/** What the same command must say to go on with it. */
function termsOf({ include, exclude, setuid, special, torn, owner, owners, delete: deletes }: RestoreRequest): string {
  const maps = owners === undefined ? null : [[...owners.users], [...owners.groups]]
  return JSON.stringify([include ?? null, exclude ?? null, deletes === true, setuid, special, torn, owner ?? null, maps])
}

/** The one that this very restore has begun. @throws unfinished where another one is in its middle */
function unfinishedIn(request: RestoreRequest, plan: RestorePlan): UndoPlace | undefined {
  const { agent, volume, path, to } = request
  const { epoch, seq } = plan.point.position
  const wanted = JSON.stringify([agent, volume, path, epoch, seq, termsOf(request)])
  let found: UndoPlace | undefined
  for (const place of UndoPlace.in(to).places) {
    const { note } = place
    if (note.state === 'done' || note.state === 'undone-but' || note.state === 'forgetting') continue
    const isSame = JSON.stringify([note.agent, note.volume, note.path, note.epoch, note.seq, note.terms]) === wanted
    if (isSame && note.state !== 'undoing') {
      found = place
      continue
    }
    const what = note.state === 'undoing' ? `restore ${place.id} is being taken back` : `restore ${place.id} has begun and did not end`
    throw new PacsimileError(
      'unfinished',
      `In ${to} ${what}: \`pacsimile restore undo ${place.id}\` takes it back${note.state === 'undoing' ? ' to its end' : `; the same command with --at seq:${note.epoch}:${note.seq} goes on with it`}`,
    )
  }
  return found
}

/** @throws usage where the target is, holds or lies in the replica, which the collector itself keeps as the history says */
async function refuseReplica(source: HistorySource, { agent, volume, to }: RestoreRequest): Promise<void> {
  const replica = await source.replicaDirectory(agent, volume)
  if (replica === undefined) return
  const [a, b] = [real(to), real(replica)]
  if (a !== b && !a.startsWith(b + sep) && !b.startsWith(a + sep)) return
  throw new PacsimileError(
    'usage',
    `${to} is where the collector keeps the replica of ${agent}:${volume}: restore into the directory that is protected`,
  )
}

function real(directory: string): string {
  try {
    return realpathSync(directory)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return directory
  }
}

function sync(to: string): void {
  const target = new SafeDirectory(to)
  try {
    libc?.syncFilesystem(target.descriptor(ROOT))
    syncDirectory(to)
  } catch (error) {
    throw asPacsimileError(error, `Writing to ${to}`)
  } finally {
    target.close()
  }
}
