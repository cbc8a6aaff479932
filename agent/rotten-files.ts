/**
 * Files whose content is not what was captured, though their times say that nobody wrote to them: bit rot on the source.
 *
 * What was captured under a lease was final; writing it needs a new open, which changes the times. So another content behind equal times
 * is the disk's doing, or of whoever wrote past the filesystem. In one small file that is written durably. Invariant: what is noted
 * here was not recorded as a version when it was found, and stays noted until the path is changed (if only its mode), is gone, or was
 * read as it was captured.
 * It prevents a decayed image from taking the place of the good one in replica and history.
 */
import { z } from 'zod'
import { readIfPresent, writeFileDurably } from '../shared/files.ts'
import { ROTTEN_PATHS_MAX } from '../shared/limits.ts'
import type { Label, RelativePath } from '../shared/path.ts'

export interface RottenFile {
  readonly path: RelativePath
  /** When it was first read so; ms since 1970. */
  readonly foundMs: number
}

const FILE = z.record(z.string(), z.record(z.string(), z.number()))

export class RottenFiles {
  readonly #file: string
  readonly #known = new Map<string, Map<string, number>>()

  /** A file that is damaged counts as absent: the next deep scan finds the same again. */
  constructor(file: string) {
    this.#file = file
    for (const [volume, paths] of Object.entries(read(file))) this.#known.set(volume, new Map(Object.entries(paths)))
  }

  /** Oldest first. */
  of(volume: Label): RottenFile[] {
    return [...(this.#known.get(volume) ?? [])].map(([path, foundMs]) => ({ path: path as RelativePath, foundMs }))
  }

  /** Of more than ROTTEN_PATHS_MAX the rest is left to the next deep scan. @returns whether that is news */
  note(volume: Label, path: RelativePath, nowMs: number): boolean {
    const paths = this.#known.get(volume) ?? new Map<string, number>()
    if (paths.has(path) || paths.size >= ROTTEN_PATHS_MAX) return false
    this.#known.set(volume, paths.set(path, nowMs))
    this.#write()
    return true
  }

  forget(volume: Label, path: RelativePath): void {
    if (this.#known.get(volume)?.delete(path) === true) this.#write()
  }

  #write(): void {
    const plain = Object.fromEntries([...this.#known].map(([volume, paths]) => [volume, Object.fromEntries(paths)]))
    try {
      writeFileDurably(this.#file, `${JSON.stringify(plain)}\n`)
    } catch {
      // It is known until the agent ends, and the next deep scan finds it again.
    }
  }
}

function read(file: string): z.output<typeof FILE> {
  try {
    return FILE.parse(JSON.parse(readIfPresent(file)?.toString('utf8') ?? '{}'))
  } catch {
    return {}
  }
}
