/** The newest version of each path, against a search through all of them, however much is read at once. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type KeyRange, keys, POSITION_BYTES, ranges, readVersionKey } from '../../collector/catalog-keys.ts'
import type { Cursor, FoundRow, Row, Rows } from '../../collector/catalog-rows.ts'
import { readStored } from '../../collector/catalog-tree.ts'
import { NewestRows } from '../../collector/newest-rows.ts'
import { label, parentOf, type RelativePath, ROOT, relativePath } from '../../shared/path.ts'

const AGENT = label('pacs1', 'agent')
const VOLUME = label('images', 'volume')

/** Rows in memory, of which at most `most` are given at once, and a count of how they were asked for. */
class SomeRows implements Rows {
  readonly #rows: readonly Row[]
  readonly #most: number
  readonly #values: ReadonlyMap<string, Buffer>
  withValues = 0
  ofKeys = 0
  looked = 0

  constructor(rows: readonly Row[], most = Number.POSITIVE_INFINITY) {
    this.#rows = [...rows].sort(([a], [b]) => a.compare(b))
    this.#most = most
    this.#values = new Map(rows.map(([key, value]) => [key.toString('latin1'), value]))
  }

  #within({ gte, lt }: KeyRange): Row[] {
    return this.#rows.filter(([key]) => key.compare(gte) >= 0 && key.compare(lt) < 0)
  }

  async *entries(range: KeyRange, { reverse = false, limit = Number.POSITIVE_INFINITY } = {}): AsyncGenerator<Row> {
    const found = this.#within(range)
    yield* (reverse ? found.reverse() : found).slice(0, limit)
  }

  cursor(range: KeyRange): Cursor {
    return this.#over(this.#within(range), (count) => {
      this.withValues += count
    })
  }

  keyCursor(range: KeyRange): Cursor<FoundRow> {
    const found = this.#within(range).map(([key]): FoundRow => [key, undefined])
    return this.#over(found, (count) => {
      this.ofKeys += count
    })
  }

  #over<Each extends FoundRow>(rows: readonly Each[], onRead: (count: number) => void): Cursor<Each> {
    let at = 0
    let isReading = false
    return {
      next: async (count = 1000) => {
        expect(isReading).toBe(false)
        isReading = true
        await Promise.resolve()
        isReading = false
        const found = rows.slice(at, at + Math.min(count, this.#most))
        at += found.length
        onRead(found.length)
        return found
      },
      seek(key) {
        expect(isReading).toBe(false)
        at = rows.findIndex(([each]) => each.compare(key) >= 0)
        if (at < 0) at = rows.length
      },
      close: () => Promise.resolve(),
    }
  }

  values(wanted: readonly Buffer[]): Promise<(Buffer | undefined)[]> {
    this.looked += wanted.length
    return Promise.resolve(wanted.map((key) => this.#values.get(key.toString('latin1'))))
  }
}

/** Versions of a path are made at every `every`th record from the first on; of those the last one ends it. */
interface History {
  readonly path: RelativePath
  readonly first: number
  readonly every: number
  readonly versions: number
  readonly isEnded: boolean
}

const GONE = Buffer.from([0])

function rowsOf({ path, first, every, versions, isEnded }: History): Row[] {
  return Array.from({ length: versions }, (_, i): Row => {
    const seq = first + i * every
    return [
      keys.version(AGENT, VOLUME, path, { epoch: 1, seq }),
      isEnded && i === versions - 1 ? GONE : Buffer.from(`\x01${path} ${seq}`, 'latin1'),
    ]
  })
}

const name = fc.constantFrom('a', 'b', 'a-', 'a.b', 'c', '\xff\xfe')
const history = fc.record({
  path: fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => relativePath(names.join('/'))),
  first: fc.integer({ min: 1, max: 300 }),
  every: fc.integer({ min: 1, max: 3 }),
  // Of few a path has one version, of some as many as are read at once.
  versions: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 8 }), fc.integer({ min: 20, max: 400 })),
  isEnded: fc.boolean(),
})
const histories = fc.uniqueArray(history, { selector: ({ path }) => path, maxLength: 40 })

/** Each path with its version, in the order of a walk. */
function stateAt(rows: readonly Row[], seq: number): Map<RelativePath, string> {
  const state = new Map<RelativePath, string>()
  for (const [key, value] of [...rows].sort(([a], [b]) => a.compare(b))) {
    const { path, position } = readVersionKey(key, AGENT, VOLUME)
    if (position.seq > seq) continue
    if (value.equals(GONE)) state.delete(path)
    else state.set(path, value.toString('latin1', 1))
  }
  return state
}

async function stored(rows: Rows, seq: number, path: RelativePath, depth: 'all' | 'directory'): Promise<[RelativePath, string][]> {
  const place = { agent: AGENT, volume: VOLUME, path, at: { epoch: 1, seq } }
  const found: [RelativePath, string][] = []
  for await (const entries of readStored(rows, place, depth))
    for (const entry of entries) found.push([entry.path, entry.version.toString('latin1')])
  return found
}

describe('the newest version of each path', () => {
  it('is what a search through all versions finds, of a tree and of one directory', async () => {
    await fc.assert(
      fc.asyncProperty(histories, fc.integer({ min: 0, max: 900 }), fc.integer({ min: 1, max: 3000 }), async (all, seq, most) => {
        const rows = all.flatMap(rowsOf)
        const state = stateAt(rows, seq)
        expect(await stored(new SomeRows(rows, most), seq, ROOT, 'all')).toEqual([...state])
        for (const directory of [ROOT, relativePath('a'), relativePath('a/b')]) {
          const found = await stored(new SomeRows(rows, most), seq, directory, 'directory')
          const names = new Set<RelativePath>()
          for (const path of state.keys())
            for (let at: RelativePath | undefined = path; at !== undefined; at = parentOf(at))
              if (parentOf(at) === directory || (at === directory && state.has(at))) names.add(at)
          expect(found.map(([path]) => path).sort()).toEqual([...names].sort())
          // Those that are known themselves; of the others it is only inferred that they are directories.
          for (const [path, version] of found) if (state.has(path)) expect(version).toBe(state.get(path))
        }
      }),
      { numRuns: 200 },
    )
  })

  it('is found by keys alone where paths have many versions, and with its value where they have few', async () => {
    const path = (i: number): RelativePath => relativePath(`f${`${i}`.padStart(5, '0')}`)
    const of = (versions: number): Row[] =>
      Array.from({ length: 3000 }, (_, i) => rowsOf({ path: path(i), first: i + 1, every: 5000, versions, isEnded: false })).flat()
    const many = new SomeRows(of(10))
    expect(await stored(many, 25_000, ROOT, 'all')).toHaveLength(3000)
    // What is read until it is known how many they are.
    expect(many.withValues).toBeLessThanOrEqual(2000)
    expect(many.ofKeys).toBeGreaterThanOrEqual(28_000)
    expect(many.looked).toBeLessThanOrEqual(3000)
    const few = new SomeRows(of(2))
    expect(await stored(few, 25_000, ROOT, 'all')).toHaveLength(3000)
    expect([few.withValues, few.ofKeys, few.looked]).toEqual([6000, 0, 0])
  })

  it('is an error where it was there and is not any more', async () => {
    const rows = Array.from({ length: 100 }, (_, i) =>
      rowsOf({ path: relativePath(`f${100 + i}`), first: i + 1, every: 200, versions: 50, isEnded: false }),
    ).flat()
    class Forgetful extends SomeRows {
      override values(wanted: readonly Buffer[]): Promise<(Buffer | undefined)[]> {
        return Promise.resolve(wanted.map(() => undefined))
      }
    }
    const until = keys.version(AGENT, VOLUME, ROOT, { epoch: 1, seq: 9000 }).subarray(-POSITION_BYTES)
    const newest = new NewestRows(new Forgetful(rows), ranges.versionsBelow(AGENT, VOLUME, ROOT), until, false)
    const all = async (): Promise<void> => {
      for (let found = await newest.next(); found !== undefined; found = await newest.next());
    }
    await expect(all()).rejects.toMatchObject({ code: 'io' })
    await newest.close()
  })
})
