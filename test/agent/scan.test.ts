import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Difference, type KnownWalk, keyAfter, LAST_KEY, Merge } from '../../agent/scan.ts'
import type { ByteString } from '../../shared/bytes.ts'
import { parentOf, pathKey, type RelativePath, ROOT } from '../../shared/path.ts'
import { path } from '../support/agent-parts.ts'

/** A tree as a map: what stands at each path is 'directory', or a number that is a file's content. */
type Model = ReadonlyMap<RelativePath, 'directory' | number>

const model = (...entries: (readonly [RelativePath, 'directory' | number])[]): Model => new Map(entries)

const byWalk = (a: RelativePath, b: RelativePath): number => (pathKey(a) < pathKey(b) ? -1 : 1)

/** What the walk of a disk would come upon. */
type Entry =
  | { readonly kind: 'present'; readonly path: RelativePath; readonly what: 'directory' | number }
  | { readonly kind: 'closed'; readonly path: RelativePath; readonly reason: string }
  | { readonly kind: 'foreign'; readonly path: RelativePath }

/** Entries of a model in pages of three, so that a page ends everywhere. */
class ModelWalk implements KnownWalk<'directory' | number> {
  readonly #entries: (readonly [ByteString, 'directory' | number])[]
  readonly #isDoubtful: boolean
  #left = 0

  constructor(model: Model, isDoubtful = false) {
    this.#entries = [...model.keys()].toSorted(byWalk).map((at) => [pathKey(at), model.get(at) ?? 0])
    this.#isDoubtful = isDoubtful
  }

  get isReady(): boolean {
    return this.#left > 0 || this.#entries.length === 0
  }

  fetch(): Promise<void> {
    this.#left = 3
    return Promise.resolve()
  }

  get key(): ByteString | undefined {
    return this.#entries[0]?.[0]
  }

  isSame(now: 'directory' | number): boolean {
    return this.#entries[0]?.[1] === now && !this.#isDoubtful
  }

  skip(): void {
    this.#entries.shift()
    this.#left -= 1
  }

  skipTo(key: ByteString): void {
    while (this.#entries[0] !== undefined && this.#entries[0][0] < key) this.skip()
  }
}

async function scan(disk: readonly Entry[], known: KnownWalk<'directory' | number>): Promise<Difference[]> {
  const found: Difference[] = []
  const merge = new Merge(known, (difference) => void found.push(difference))
  for (const entry of disk) {
    const key = pathKey(entry.path)
    await merge.passTo(key)
    if (entry.kind === 'present') merge.present(key, entry.what, entry.what === 'directory', entry.what === 'directory')
    else merge.unknown(entry, key)
  }
  await merge.passTo(LAST_KEY)
  expect(merge.differences).toBe(found.length)
  return found
}

function entriesOf(model: Model): Entry[] {
  return [...model.keys()].toSorted(byWalk).map((at) => ({ kind: 'present', path: at, what: model.get(at) ?? 0 }))
}

/** A tree in which everything lies in a directory. */
const anyModel: fc.Arbitrary<Model> = fc
  .array(fc.tuple(fc.array(fc.constantFrom('a', 'b', 'a-', 'c'), { minLength: 1, maxLength: 4 }), fc.integer({ min: 0, max: 2 })))
  .map((files) => {
    const tree = new Map<RelativePath, 'directory' | number>([[ROOT, 'directory']])
    for (const [names, content] of files) {
      const at = path(names.join('/'))
      for (let above = parentOf(at); above !== undefined; above = parentOf(above)) tree.set(above, 'directory')
      if (!tree.has(at)) tree.set(at, content)
    }
    for (const at of tree.keys()) if (tree.get(parentOf(at) ?? ROOT) !== 'directory') tree.delete(at)
    return tree
  })

function expected(disk: Model, known: Model): { changed: string[]; missing: string[] } {
  const changed = [...disk.keys()].filter((at) => known.get(at) !== disk.get(at))
  const gone = [...known.keys()].filter((at) => !disk.has(at))
  // Below what is a file now, or is gone as a whole, nothing more is told.
  const missing = gone.filter((at) => disk.get(parentOf(at) ?? ROOT) === 'directory')
  return { changed: changed.toSorted(), missing: missing.toSorted() }
}

describe('a scan', () => {
  it('finds exactly what differs between any two trees', async () => {
    await fc.assert(
      fc.asyncProperty(anyModel, anyModel, async (disk, known) => {
        const found = await scan(entriesOf(disk), new ModelWalk(known))
        const ofKind = (kind: Difference['kind']): string[] =>
          found.filter((difference) => difference.kind === kind).map((difference) => difference.path)
        expect({ changed: ofKind('changed').toSorted(), missing: ofKind('missing').toSorted() }).toEqual(expected(disk, known))
      }),
    )
  })

  it('concludes nothing about what it could not enter', async () => {
    const known = model(
      [ROOT, 'directory'],
      [path('locked'), 'directory'],
      [path('locked/file'), 1],
      [path('mount'), 'directory'],
      [path('mount/file'), 1],
      [path('z'), 1],
    )
    const disk: Entry[] = [
      { kind: 'present', path: ROOT, what: 'directory' },
      { kind: 'present', path: path('locked'), what: 'directory' },
      { kind: 'closed', path: path('locked'), reason: 'EACCES' },
      { kind: 'foreign', path: path('mount') },
    ]
    expect(await scan(disk, new ModelWalk(known))).toEqual([
      { kind: 'closed', path: 'locked', reason: 'EACCES' },
      { kind: 'foreign', path: 'mount' },
      { kind: 'missing', path: 'z' },
    ])
  })

  it('looks again at what was not captured in a stable state', async () => {
    const disk: Entry[] = [{ kind: 'present', path: ROOT, what: 'directory' }]
    expect(await scan(disk, new ModelWalk(model([ROOT, 'directory']), true))).toMatchObject([{ kind: 'changed', path: '' }])
  })

  it('goes by what it did not enter, and by what it is told to leave out', async () => {
    const known = new ModelWalk(
      model([path('a'), 'directory'], [path('a/1'), 1], [path('b'), 'directory'], [path('b/1'), 1], [path('c'), 1]),
    )
    const found: Difference[] = []
    const merge = new Merge(known, (difference) => void found.push(difference))
    await merge.passTo('a')
    expect(merge.present('a', 'directory', true, false)).toBe(true)
    merge.leaveOut(keyAfter('b'))
    await merge.passTo(LAST_KEY)
    expect(found).toEqual([{ kind: 'missing', path: 'c' }])
  })
})
