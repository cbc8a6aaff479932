/**
 * The name of the directory in which a restore in place keeps what it is about to put, and then what it has replaced:
 * `.pacsimile-restore-ID`, in the directory that it restores into.
 *
 * Agents leave it out of the history: what is in it either is there already or has just come from there. Invariant: both sides know it by this
 * one rule, which no name fits by chance. It prevents a restore from being captured twice, and a file of the archive from being taken for one of its own.
 */
import { childOf, type RelativePath, ROOT } from './path.ts'

const PREFIX = '.pacsimile-restore-'
const NAME = /(?:^|\/)\.pacsimile-restore-[0-9a-f]{12}(?:\/|$)/

/** `id`: 12 hex digits. */
export function undoPlaceOf(id: string): RelativePath {
  return childOf(ROOT, `${PREFIX}${id}`)
}

/** Undefined where the name is not one of such a directory. */
export function undoIdOf(name: string): string | undefined {
  return /^\.pacsimile-restore-([0-9a-f]{12})$/.exec(name)?.[1]
}

/** Whether a path is such a directory or lies in one. */
export function isInUndoPlace(path: RelativePath): boolean {
  return path.includes(PREFIX) && NAME.test(path)
}
