/**
 * What of a volume is never captured: the agent's own state, where it lies inside, and what the volume's rules name
 * (gitignore syntax, `ignore` in agent.toml).
 *
 * Nothing else is ignored unasked, but for the directories of a restore in place (shared/undo-place.ts): a name that looks temporary may be the only copy of a study for as long as it takes to write
 * it. Names are bytes, and so are patterns: both are compared as the bytes of their UTF-8, as git does.
 * Invariant: the answer depends on the path and its kind alone, and where a directory is ignored everything below it is.
 * It prevents the agent from capturing its own journal, whose every capture would be a change to capture, and two threads
 * from disagreeing on whether a file is protected.
 */
import { realpathSync } from 'node:fs'
import ignore, { type Ignore } from 'ignore'
import { byteString, isWithin, type RelativePath, ROOT, relativePath } from '../../shared/path.ts'
import { isInUndoPlace } from '../../shared/undo-place.ts'

/** What rules are made of; it can be sent to another thread. */
export interface IgnoreSources {
  /** Ignored with everything below. */
  readonly paths: readonly RelativePath[]
  /** In gitignore syntax, as text, in their order: of several that match, the last decides. */
  readonly patterns: readonly string[]
}

/** Another one where the same rules leave out something else than before. */
const MEANING = 1
/** Answers kept by the library before it is made anew: it would keep every path that it was ever asked about. */
const ANSWERS_MAX = 4096

export class IgnoreRules {
  readonly paths: readonly RelativePath[]
  readonly patterns: readonly string[]
  readonly #bytePatterns: readonly string[]
  #matcher: Ignore
  #answers = 0

  constructor({ paths, patterns }: IgnoreSources) {
    this.paths = paths
    this.patterns = patterns
    this.#bytePatterns = patterns.map((pattern) => byteString(pattern))
    this.#matcher = matcherOf(this.#bytePatterns)
  }

  /** The same of rules that are the same. */
  get text(): string {
    return JSON.stringify([MEANING, this.paths, this.patterns])
  }

  /** `isDirectory` undefined: only what is ignored whether it is a directory or not. A symlink is none. */
  isIgnored(path: RelativePath, isDirectory: boolean | undefined): boolean {
    if (path === ROOT) return false
    if (isInUndoPlace(path) || this.paths.some((ignored) => isWithin(path, ignored))) return true
    if (this.#bytePatterns.length === 0) return false
    if (isDirectory === undefined) return this.#matches(path) && this.#matches(`${path}/`)
    return this.#matches(isDirectory ? `${path}/` : path)
  }

  /** Directories above the path are asked about first, and their answers kept. */
  #matches(path: string): boolean {
    this.#answers += 1
    if (this.#answers > ANSWERS_MAX) {
      this.#answers = 0
      this.#matcher = matcherOf(this.#bytePatterns)
    }
    return this.#matcher.ignores(path)
  }
}

function matcherOf(bytePatterns: readonly string[]): Ignore {
  return ignore({ ignoreCase: false }).add(bytePatterns)
}

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
