/**
 * What of a volume is never captured: the agent's own state, where it lies inside.
 *
 * Nothing else is: a name that looks temporary may be the only copy of a study for as long as it takes to write it.
 * Invariant: the answer depends on where directories really are, not on how they are spelled. It prevents the agent from
 * capturing its own journal, whose every capture would be a change to capture.
 */
import { realpathSync } from 'node:fs'
import { byteString, isWithin, type RelativePath, ROOT, relativePath } from '../../shared/path.ts'

/** The paths of the volume at `directory` that are not protected because the agent keeps its state there. */
export function ignoredPaths(directory: string, stateDir: string): RelativePath[] {
  const volume = relativePath(byteString(realPath(directory).slice(1)))
  const state = relativePath(byteString(realPath(stateDir).slice(1)))
  if (!isWithin(state, volume)) return []
  const below = volume === ROOT ? state : state.slice(volume.length + 1)
  return [relativePath(below)]
}

/** As it is written where it does not exist, or not yet. */
function realPath(directory: string): string {
  try {
    return realpathSync(directory)
  } catch {
    return directory
  }
}
