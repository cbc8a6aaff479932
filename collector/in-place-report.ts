/**
 * What a restore in place does, or did, path by path: from the steps, be they only planned or done. Pure.
 */
import { pathKey, type RelativePath } from '../shared/path.ts'
import type { ListedEntry } from './history-source.ts'
import type { Comparison, Step } from './in-place-compare.ts'
import type { Missing } from './restore-plan.ts'
import type { Trouble } from './swap.ts'
import type { SwapStep, SwapSummary } from './swap-steps.ts'
import type { UndoPlace } from './undo-place.ts'

/** All paths are of the volume. */
export interface InPlaceReport {
  /** Of the undo place; undefined where nothing was begun, or nothing is to do. */
  readonly id: string | undefined
  /** What comes where nothing was, and where something else was. */
  readonly added: readonly RelativePath[]
  readonly replaced: readonly RelativePath[]
  /** What is put aside, each with all that is below it, and how many paths and bytes that is; without --delete nothing. */
  readonly removed: readonly RelativePath[]
  readonly removedPaths: number
  readonly removedBytes: number
  /** What keeps its content and is given other metadata. */
  readonly metadata: readonly RelativePath[]
  /** What has the right content as it is, and its bytes. */
  readonly kept: readonly RelativePath[]
  readonly keptBytes: number
  /** Content that is written; undefined where an earlier run has written it. */
  readonly bytesToWrite: number | undefined
  /** How many paths were not there at the moment, and stay. */
  readonly others: number
  /** Files that some process has open for writing: it goes on writing to what was put aside. */
  readonly inUse: readonly RelativePath[]
  /** What was made or written by somebody after it was compared, and is in the undo place. */
  readonly changed: readonly Trouble[]
  readonly missing: readonly Missing[]
}

/** `pathOf`: the path of the volume that one of the target stands for. `entries`: all that is wanted. */
export function inPlaceReport(
  found: SwapSummary | Comparison,
  steps: readonly (Step | SwapStep)[],
  pathOf: (at: RelativePath) => RelativePath,
  entries: readonly ListedEntry[],
  place: UndoPlace | undefined,
): InPlaceReport {
  const paths = {
    added: [] as RelativePath[],
    replaced: [] as RelativePath[],
    removed: [] as RelativePath[],
    metadata: [] as RelativePath[],
  }
  let bytesToWrite: number | undefined = 'steps' in found ? 0 : undefined
  for (const step of steps) {
    const path = pathOf(step.path)
    if (step.kind === 'put' && step.entry.version.kind === 'file') bytesToWrite = (bytesToWrite ?? 0) + step.entry.version.size
    if (step.kind === 'remove') paths.removed.push(path)
    else if (step.kind !== 'metadata') paths[step.old === undefined ? 'added' : 'replaced'].push(path)
    else if (step.old !== undefined && isWanted(step)) paths.metadata.push(path)
  }
  for (const list of Object.values(paths)) list.sort(compareKeys)
  const { removed: removedPaths, removedBytes, others, inUse, missing } = found
  const changing = new Set([...paths.added, ...paths.replaced, ...missing.map(({ path }) => path)])
  const right = entries.filter(({ path }) => !changing.has(path))
  const keptBytes = right.reduce((sum, { version }) => sum + (version.kind === 'file' ? version.size : 0), 0)
  const kept = right.map(({ path }) => path)
  return { id: place?.id, ...paths, removedPaths, removedBytes, kept, keptBytes, bytesToWrite, others, inUse, changed: [], missing }
}

function compareKeys(a: RelativePath, b: RelativePath): number {
  const [keyA, keyB] = [pathKey(a), pathKey(b)]
  return keyA < keyB ? -1 : keyA > keyB ? 1 : 0
}

function isWanted(step: Extract<Step | SwapStep, { kind: 'metadata' }>): boolean {
  return 'version' in step ? step.version !== undefined : 'wanted' in step && step.wanted !== undefined
}
