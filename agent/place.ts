/**
 * A place: a path of a volume. What the agent looks at, waits for and records is always one.
 */
import type { Label, RelativePath } from '../shared/path.ts'

export interface Place {
  readonly volume: Label
  readonly path: RelativePath
}

/** Equal for equal places: no label holds a NUL. */
export function placeKey({ volume, path }: Place): string {
  return `${volume}\0${path}`
}
