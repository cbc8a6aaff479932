/**
 * What must be recorded before what: older versions of a path before its present one, and a move before what it looks like
 * from where the directory was.
 *
 * A look that has ended asks the watcher for a fence: then everything that happened before the look ended has been told, and
 * what of it concerns the path is with `pins` and `renames`. Invariant: a file's present state, or its absence, is recorded
 * only after every version of it that was closed before. It prevents a history in which a file goes back in time.
 */
import type { Label } from '../shared/path.ts'
import type { Pins } from './pins.ts'
import type { Finding } from './recorder.ts'
import type { Renames } from './renames.ts'
import type { Volume } from './volume.ts'
import type { Fence } from './watch/watcher.ts'

/** With the pauses between looks these are some ten seconds, in which a moved directory is found where it is. */
const RENAME_RETRIES_MAX = 40

export type Fences = ReadonlyMap<Label, Fence>

/** Of a volume that is not watched, or not completely. */
const NOTHING_WAITS: Fence = { isBehind: false, closedBeforeNs: 0n }

export class Order {
  readonly #volumes: ReadonlyMap<Label, Volume>
  readonly #pins: Pins
  readonly #renames: Renames

  constructor(parts: { volumes: ReadonlyMap<Label, Volume>; pins: Pins; renames: Renames }) {
    this.#volumes = parts.volumes
    this.#pins = parts.pins
    this.#renames = parts.renames
  }

  /** Resolves when all that happened before has been told, in the volumes of those findings that depend on it. */
  async fences(findings: readonly Finding[]): Promise<Fences> {
    const volumes = new Set(findings.filter(({ outcome, pin }) => pin === undefined && isNews(outcome)).map(({ volume }) => volume))
    const asked = [...volumes].map(
      async (name): Promise<[Label, Fence]> => [name, (await this.#volumes.get(name)?.watcher?.fence()) ?? NOTHING_WAITS],
    )
    return new Map(await Promise.all(asked))
  }

  /** Whether something older, which is known, is still to be recorded before it. */
  isHeld(finding: Finding): boolean {
    const { volume, path, outcome, pin } = finding
    if (pin !== undefined || !isNews(outcome)) return false
    if (this.#isBeforeRename(finding)) return true
    if (isDirectory(outcome)) return false
    return this.#pins.concerns({ volume, path: outcome.kind === 'gone' ? outcome.topmost : path })
  }

  /**
   * Whether older versions of the path may wait in the kernel still. Not of a file that is the one that was recorded: what was
   * closed of it since is in what was read now. Nor of one that was made before the newest version that was read was closed:
   * whatever had its name before it was closed earlier, and has been read.
   */
  isBehind({ volume, outcome, pin, knownInode }: Finding, fences: Fences): boolean {
    const fence = fences.get(volume)
    if (pin !== undefined || !isNews(outcome) || isDirectory(outcome) || fence?.isBehind !== true) return false
    if (outcome.kind === 'gone') return true
    const { version, bornNs } = outcome
    return version.inode !== knownInode && !(bornNs !== undefined && bornNs < fence.closedBeforeNs)
  }

  #isBeforeRename(finding: Finding): boolean {
    const { volume, path, outcome, retries } = finding
    // What a rename brings there would end what was recorded before it.
    if (this.#renames.isBelowTarget({ volume, path })) return true
    if (outcome.kind !== 'gone') return this.#isLeft(finding)
    const places = [path, outcome.topmost].map((gone) => ({ volume, path: gone }))
    if (!places.some((gone) => this.#renames.concerns(gone))) return false
    // Directories that were moved into each other and are gone since may wait for each other: none waits for ever.
    if (retries < RENAME_RETRIES_MAX) return true
    for (const gone of places) this.#renames.doubt(gone)
    return false
  }

  /** To record it would put it into the directory that was moved away, and move it with that. */
  #isLeft({ volume, path, outcome, retries }: Finding): boolean {
    const [place, isOfDirectory] = [{ volume, path }, isDirectory(outcome)]
    if (!this.#renames.isLeft(place, isOfDirectory)) return false
    if (retries < RENAME_RETRIES_MAX) return true
    this.#renames.reuse(place, isOfDirectory)
    return false
  }
}

function isNews(outcome: Finding['outcome']): outcome is Extract<Finding['outcome'], { kind: 'gone' | 'version' }> {
  return outcome.kind === 'gone' || outcome.kind === 'version'
}

function isDirectory(outcome: Finding['outcome']): boolean {
  return outcome.kind === 'version' && outcome.version.kind === 'directory'
}
