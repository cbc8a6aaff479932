/**
 * The truth model: a directory and an array of full copies of what it held. Naive on purpose.
 *
 * `copy` is everything that a restore of that moment must bring back, as an independent walk of the source saw it.
 */
import { type WalkedEntry, walkTree } from './tree-walk.ts'

export type Copy = ReadonlyMap<string, WalkedEntry>

export interface TruePoint {
  /** Wall clock, ms since 1970, after the copy was taken. */
  readonly ms: number
  readonly copy: Copy
}

export class Truth {
  readonly root: string
  readonly points: TruePoint[] = []

  constructor(root: string) {
    this.root = root
  }

  /** Notes what the directory holds now; the caller makes no change meanwhile. */
  note(): TruePoint {
    const point = { copy: walkTree(this.root), ms: Date.now() }
    this.points.push(point)
    return point
  }
}

/** What differs between two trees, in words; empty when nothing does. Setuid bits of files are restored on request only. */
export function differences(expected: Copy, found: Copy): string[] {
  const words: string[] = []
  for (const [path, want] of expected) {
    const have = found.get(path)
    if (have === undefined) {
      words.push(`${JSON.stringify(path)} is missing`)
      continue
    }
    for (const [field, value] of Object.entries(want)) {
      const other: unknown = have[field as keyof WalkedEntry]
      if (other !== value) words.push(`${JSON.stringify(path)} ${field}: ${String(value)} expected, ${String(other)} found`)
    }
  }
  for (const path of found.keys()) if (!expected.has(path)) words.push(`${JSON.stringify(path)} should not be there`)
  return words
}
