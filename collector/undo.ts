/**
 * Restores in place afterwards: which there are, taking one back, and giving up that one can be.
 *
 * Taking back ends where it was cut short, and puts nothing over what somebody has changed since: that is listed, or with `force` kept aside in its turn.
 * Invariant: an undo place is removed only when everything was taken back, or when somebody gave it up. It prevents the cleaning up after an undo
 * from being what loses a file.
 */
import { statSync } from 'node:fs'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { syncDirectory } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import { byteString, childOf, ROOT } from '../shared/path.ts'
import { Materializer } from './materialize.ts'
import type { Shortcoming } from './metadata-writer.ts'
import { SafeDirectory } from './safe-directory.ts'
import { Swap, type Trouble } from './swap.ts'
import type { SwapStep } from './swap-steps.ts'
import { TargetHold, UndoPlace } from './undo-place.ts'

export interface UndoReport {
  readonly id: string
  readonly to: string
  /** Steps that are taken back: paths, each with all that is below it. */
  readonly steps: number
  /** What could not be, or was changed since, with the reason. Then the undo place stays. */
  readonly troubles: readonly Trouble[]
  readonly shortcomings: readonly Shortcoming[]
  /** Whether the target is as it was. */
  readonly done: boolean
  /** Something is not done, or had to make way by `force` and is nowhere else. */
  readonly placeStays: boolean
}

/** `force` holds until the undo has ended, also where that takes several runs. @throws not-found, locked, io, space, format-invalid */
export async function undoRestore(target: string, id: string, force: boolean): Promise<UndoReport> {
  const hold = await TargetHold.take(target)
  try {
    return undo(target, id, force)
  } finally {
    await hold[Symbol.asyncDispose]()
  }
}

function undo(target: string, id: string, force: boolean): UndoReport {
  const place = found(target, id)
  const isUntouched = place.note.state === 'staging' || place.note.state === 'forgetting'
  if (isUntouched) {
    removePlace(place, place.note.state === 'staging' ? BigInt(place.note.rootMtimeNs) : undefined)
    return { id, to: target, steps: 0, troubles: [], shortcomings: [], done: true, placeStays: false }
  }
  const { steps } = place.readSteps()
  const { note } = place
  // One that was cut short goes on as it was asked for; one that has ended was asked for once.
  const isForcing = force || (note.state === 'undoing' && note.isForcing === true)
  const isForced = isForcing || note.isForced === true
  place.enter('undoing', { isForced, isForcing })
  const shortcomings: Shortcoming[] = []
  let troubles: readonly Trouble[] = []
  try {
    const onShortcoming = (shortcoming: Shortcoming): number => shortcomings.push(shortcoming)
    using swap = new Swap({ place, materialize: { setuid: true, special: true, onShortcoming } })
    swap.back(steps, isForcing)
    troubles = swap.troubles
    syncAll(target)
  } catch (error) {
    throw asPacsimileError(error, `Taking back restore ${id} in ${target} (the same command goes on)`)
  }
  const done = troubles.length === 0
  if (!done || isForced) place.enter('undone-but', { endedMs: Date.now() })
  else removePlace(place, rootMtimeOf(steps) ?? BigInt(place.note.rootMtimeNs))
  return { id, to: target, steps: steps.length, troubles, shortcomings, done, placeStays: !done || isForced }
}

function rootMtimeOf(steps: readonly SwapStep[]): bigint | undefined {
  for (const step of steps) if (step.kind === 'metadata' && step.path === ROOT) return step.old?.mtimeNs
  return undefined
}

/** It cannot be taken back any more; what is there stays as it is. @throws not-found, locked, unfinished, io */
export async function forgetRestore(target: string, id: string): Promise<void> {
  const hold = await TargetHold.take(target)
  try {
    forget(target, id)
  } finally {
    await hold[Symbol.asyncDispose]()
  }
}

function forget(target: string, id: string): void {
  const place = found(target, id)
  const { state } = place.note
  if (state === 'swapping' || state === 'undoing')
    throw new PacsimileError(
      'unfinished',
      `Restore ${id} in ${target} is in its middle: \`pacsimile restore undo ${id}\` takes it back first`,
    )
  removePlace(place, state === 'staging' ? BigInt(place.note.rootMtimeNs) : undefined)
}

/** The target's modification time is as it was before, or what is named. */
function removePlace(place: UndoPlace, rootMtimeNs: bigint | undefined): void {
  const { target } = place
  try {
    const { mtimeNs } = statSync(target, { bigint: true })
    place.enter('forgetting', {})
    const files = new Materializer(target, noContent, { setuid: false, special: false })
    try {
      // What says what it is goes last.
      files.removeAll(childOf(place.path, 'slots'))
      files.removeAll(place.path)
    } finally {
      files.close()
    }
    libc?.setModified(`${byteString(target)}/.`, rootMtimeNs ?? mtimeNs)
    syncDirectory(target)
  } catch (error) {
    throw asPacsimileError(error, `Removing ${place.directory}`)
  }
}

function syncAll(target: string): void {
  const tree = new SafeDirectory(target)
  try {
    libc?.syncFilesystem(tree.descriptor(ROOT))
  } finally {
    tree.close()
  }
}

function noContent(): never {
  throw new PacsimileError('internal', 'No file is written here')
}

/** @throws not-found, format-invalid */
function found(target: string, id: string): UndoPlace {
  const place = UndoPlace.find(target, id)
  if (place === undefined) throw new PacsimileError('not-found', `${target} holds no restore ${id} that could be taken back`)
  return place
}
