import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { FileStat } from '../../agent/file-stat.ts'
import { type Difference, differences, type KnownEntry, type KnownWalk } from '../../agent/scan.ts'
import { decodeScanEntries, encodeScanEntry, type ScanEntry } from '../../agent/scan-entry.ts'
import { ByteWriter } from '../../shared/bytes.ts'
import { isWithin, parentOf, pathKey, type RelativePath, ROOT } from '../../shared/path.ts'
import { path } from '../support/agent-parts.ts'

/** A tree as a map: what stands at each path is 'directory', or a number that is a file's content. */
type Model = ReadonlyMap<RelativePath, 'directory' | number>

const model = (...entries: (readonly [RelativePath, 'directory' | number])[]): Model => new Map(entries)

const byWalk = (a: RelativePath, b: RelativePath): number => (pathKey(a) < pathKey(b) ? -1 : 1)

function statOf(what: 'directory' | number): FileStat {
  const times = { mtimeNs: 0n, ctimeNs: typeof what === 'number' ? BigInt(what) : 0n }
  return { kind: what === 'directory' ? 'directory' : 'file', mode: 0o755, uid: 0, gid: 0, size: 1, inode: 1n, ...times }
}

class ModelWalk implements KnownWalk {
  readonly #entries: KnownEntry[]

  constructor(model: Model, top: RelativePath) {
    const paths = [...model.keys()].filter((at) => isWithin(at, top)).toSorted(byWalk)
    this.#entries = paths.map((at) => ({ path: at, identity: { ...statOf(model.get(at) ?? 0), doubt: 'none' } }))
  }

  peek(): KnownEntry | undefined {
    return this.#entries[0]
  }

  skip(): void {
    this.#entries.shift()
  }

  skipWithin(within: RelativePath): void {
    while (this.#entries[0] !== undefined && isWithin(this.#entries[0].path, within)) this.#entries.shift()
  }
}

async function scan(disk: readonly ScanEntry[], known: Model, top = ROOT, isShallow = false): Promise<Difference[]> {
  const found: Difference[] = []
  const batches = async function* (): AsyncGenerator<ScanEntry[]> {
    for (let at = 0; at < disk.length; at += 3) yield disk.slice(at, at + 3)
  }
  for await (const batch of differences(batches(), new ModelWalk(known, top), top, isShallow)) found.push(...batch)
  return found
}

function entriesOf(model: Model): ScanEntry[] {
  return [...model.keys()].toSorted(byWalk).map((at) => ({ kind: 'present', path: at, stat: statOf(model.get(at) ?? 0) }))
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
        const found = await scan(entriesOf(disk), known)
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
    const disk: ScanEntry[] = [
      { kind: 'present', path: ROOT, stat: statOf('directory') },
      { kind: 'present', path: path('locked'), stat: statOf('directory') },
      { kind: 'closed', path: path('locked'), reason: 'EACCES' },
      { kind: 'foreign', path: path('mount') },
    ]
    expect(await scan(disk, known)).toEqual([
      { kind: 'closed', path: 'locked', reason: 'EACCES' },
      { kind: 'foreign', path: 'mount' },
      { kind: 'missing', path: 'z' },
    ])
  })

  it('looks again at what was not captured in a stable state', async () => {
    const walk = new ModelWalk(model([ROOT, 'directory']), ROOT)
    const uncertain: KnownWalk = {
      peek: () => {
        const entry = walk.peek()
        return entry === undefined ? undefined : { ...entry, identity: { ...entry.identity, doubt: 'unstable' } }
      },
      skip: () => walk.skip(),
      skipWithin: (within) => walk.skipWithin(within),
    }
    const disk = async function* (): AsyncGenerator<ScanEntry[]> {
      yield [{ kind: 'present', path: ROOT, stat: statOf('directory') }]
    }
    const found: Difference[] = []
    for await (const batch of differences(disk(), uncertain, ROOT, false)) found.push(...batch)
    expect(found).toMatchObject([{ kind: 'changed', path: '' }])
  })

  it('that is shallow compares the direct children only, and tells of new directories', async () => {
    const known = model([path('d'), 'directory'], [path('d/gone'), 1], [path('d/sub'), 'directory'], [path('d/sub/deep'), 1])
    const disk = model([path('d'), 'directory'], [path('d/new'), 'directory'], [path('d/sub'), 'directory'])
    expect(await scan(entriesOf(disk), known, path('d'), true)).toEqual([
      { kind: 'missing', path: 'd/gone' },
      { kind: 'changed', path: 'd/new', isNewDirectory: true },
    ])
  })
})

it('entries come out of their encoding as they went in', () => {
  const entries: ScanEntry[] = [
    { kind: 'present', path: path('a/\xff'), stat: { ...statOf(5), size: 2 ** 40, mtimeNs: -5n, inode: 2n ** 63n } },
    { kind: 'closed', path: ROOT, reason: 'EACCES: permission denied' },
    { kind: 'foreign', path: path('mnt') },
  ]
  const writer = new ByteWriter()
  for (const entry of entries) encodeScanEntry(entry, writer)
  expect([...decodeScanEntries(writer.view())]).toEqual(entries)
})
