/** What LevelDB says of the catalog, as an error of this program. */
import { PacsimileError, reasonOf } from '../shared/errors.ts'

/** Never the code `damage`, which is about the repository, or what a peer has sent. LevelDB's errors have no errno; what the system said stands in their text. */
export function levelError(error: unknown, what: string): PacsimileError {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  const reason = reasonOf(cause)
  const isFull = reason.includes('No space left') || reason.includes('quota')
  // A file that the others name and that is not there is damage as much as one that does not read.
  const isDamaged = reason.includes('No such file') || (cause instanceof Error && 'code' in cause && cause.code === 'LEVEL_CORRUPTION')
  return new PacsimileError(isFull ? 'space' : 'io', `${what}: ${reason}`, { cause: error, details: isDamaged ? { isDamaged } : {} })
}
