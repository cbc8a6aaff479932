import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Database } from '../../agent/database.ts'
import type { Journal } from '../../agent/journal.ts'
import { keyAfter, LAST_KEY } from '../../agent/scan.ts'
import { type Listing, State } from '../../agent/state.ts'
import { blockKey, blockPrefix, listedKey, MARK_KEY, rangeOfPrefix } from '../../agent/state-keys.ts'
import { StateWalk } from '../../agent/state-walk.ts'
import { hybridTime } from '../../shared/clock.ts'
import { pathFromKey, pathKey, type RelativePath, ROOT } from '../../shared/path.ts'
import type { Change } from '../../shared/record.ts'
import { MemoryTree } from '../../shared/tree.ts'
import { directoryVersion, FIRST, fileVersion, openJournal, path, put, VOLUME } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

async function openState(directory: string, epoch = 1, oldest = 1, head = 0): Promise<State> {
  const state = await State.open(join(directory, 'state'), epoch, { oldest, head: { seq: head } })
  onTestFinished(() => state.close())
  return state
}

/** Of a volume of which nothing but its directory is recorded, and the database that scan threads see. */
async function openedWithRoot(): Promise<{ readonly journal: Journal; readonly state: State; readonly database: Database }> {
  const directory = scratchDirectory()
  const journal = await openJournal(directory)
  const state = await openState(directory)
  await append(journal, state, [FIRST, put('', directoryVersion({ inode: 10n }))])
  const database = await Database.join(state.directory)
  onTestFinished(() => database.close())
  return { journal, state, database }
}

async function append(journal: Journal, state: State, changes: readonly Change[]): Promise<void> {
  const entries = await journal.append(changes)
  await state.apply(entries.map(({ record }) => record))
}

async function walkOf(state: State): Promise<StateWalk> {
  const database = await Database.join(state.directory)
  onTestFinished(() => database.close())
  return new StateWalk(database, VOLUME, '', LAST_KEY)
}

async function pathsOf(state: State): Promise<RelativePath[]> {
  const walk = await walkOf(state)
  const paths: RelativePath[] = []
  for (await walk.fetch(); walk.key !== undefined; await walk.fetch()) {
    paths.push(pathFromKey(walk.key))
    walk.skip()
  }
  return paths
}

const NAMES = ['a', 'b', 'a-', 'a.b']
const anyPath = fc.array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 4 }).map((names) => path(names.join('/')))
const anyChange = fc.oneof(
  fc.record({
    kind: fc.constant('put' as const),
    volume: fc.constant(VOLUME),
    path: anyPath,
    version: fc.constantFrom(directoryVersion(), fileVersion('x', { inode: 7n })),
  }),
  fc.record({ kind: fc.constant('remove' as const), volume: fc.constant(VOLUME), path: anyPath }),
  fc.record({ kind: fc.constant('rename' as const), volume: fc.constant(VOLUME), path: anyPath, to: anyPath }),
  fc.record({ kind: fc.constant('sweep' as const), volume: fc.constant(VOLUME), since: fc.integer({ min: 1, max: 20 }) }),
)

describe('the state', () => {
  it('is the fold of the journal, however the records are grouped', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(anyChange, { minLength: 1, maxLength: 5 }), { maxLength: 6 }), async (groups) => {
        const directory = scratchDirectory()
        const journal = await openJournal(directory)
        const state = await openState(directory)
        await append(journal, state, [FIRST])
        const tree = new MemoryTree()
        for (const group of groups) {
          const entries = await journal.append(group)
          await state.apply(entries.map(({ record }) => record))
          for (const { record } of entries) tree.apply(record)
        }
        expect(await pathsOf(state)).toEqual([...tree.within(ROOT)].map((entry) => entry.path))
        for (const { path: at, position, version } of tree.within(ROOT)) {
          expect(await state.at({ volume: VOLUME, path: at })).toEqual({ seq: position.seq, version, isLost: false })
        }
        const files = [...tree.within(ROOT)].filter(({ version }) => version.kind === 'file')
        const directories = [...tree.within(ROOT)].filter(({ version }) => version.kind === 'directory')
        expect((await state.namesOf(VOLUME, [1n])).toSorted()).toEqual(directories.map((entry) => entry.path).toSorted())
        expect((await state.namesOf(VOLUME, [7n])).toSorted()).toEqual(files.map((entry) => entry.path).toSorted())
        await state.close()
        await journal.close()
      }),
      { numRuns: 30 },
    )
  })

  it('says how far it has come, and goes on from there when it is opened again', async () => {
    const directory = scratchDirectory()
    const journal = await openJournal(directory)
    const state = await openState(directory)
    await append(journal, state, [FIRST, put('a', fileVersion('1'))])
    await state.close()
    const entries = await journal.append([put('b', fileVersion('2'))])
    const again = await openState(directory)
    expect(again.applied).toBe(2)
    await again.apply(entries.map(({ record }) => record))
    expect(await pathsOf(again)).toEqual(['a', 'b'])
  })

  it.each([
    ['of another epoch', 2, 1],
    ['older than what the journal can replay', 1, 5],
  ])('is begun anew when it is %s, but knows until when volumes were covered', async (_, epoch, oldest) => {
    const directory = scratchDirectory()
    const journal = await openJournal(directory)
    const state = await openState(directory)
    const until = hybridTime(99n)
    await append(journal, state, [
      FIRST,
      { kind: 'volume', volume: VOLUME, root: '/v', mode: 'best-effort' },
      { kind: 'coverage', volume: VOLUME, from: until, until, mode: 'best-effort' },
    ])
    await state.close()
    const anew = await openState(directory, epoch, oldest, 9)
    expect(await pathsOf(anew)).toEqual([])
    // Only where the journal holds all of the epoch it is of use.
    expect(anew.applied).toBe(oldest === 1 ? 0 : 9)
    expect(anew.facts(VOLUME)).toBeUndefined()
    expect(anew.coveredBefore(VOLUME)).toBe(until)
  })

  it.each([
    ['of another layout', (mark: Buffer): Buffer => Buffer.concat([Buffer.from([99]), mark.subarray(1)])],
    ['of the first layout', (mark: Buffer): Buffer => mark.subarray(8)],
  ])('is begun anew when it is %s', async (_, older) => {
    const directory = scratchDirectory()
    const journal = await openJournal(directory)
    const state = await openState(directory)
    await append(journal, state, [FIRST, put('a', fileVersion('1'))])
    await state.close()
    const database = await Database.open(join(directory, 'state'))
    const mark = await database.get(MARK_KEY)
    await database.write([{ type: 'put', key: MARK_KEY, value: older(mark ?? Buffer.alloc(0)) }], { sync: true })
    await database.close()
    const anew = await openState(directory)
    expect(await pathsOf(anew)).toEqual([])
    expect(anew.applied).toBe(0)
  })

  it('forgets what a scan saw of a directory as soon as other names are recorded in it', async () => {
    const directory = scratchDirectory()
    const journal = await openJournal(directory)
    const state = await openState(directory)
    const times = Buffer.alloc(24)
    await append(journal, state, [
      FIRST,
      put('', directoryVersion({ inode: 10n })),
      put('d', directoryVersion({ inode: 11n })),
      put('d/f', fileVersion('1')),
    ])
    const database = await Database.join(state.directory)
    onTestFinished(() => database.close())
    const isListed = (inode: bigint): boolean => database.getNow(listedKey(VOLUME, inode)) !== undefined
    const note = (listing: Listing): Promise<void> =>
      state.noteSeen(listing, {
        listed: [
          { inode: 10n, times },
          { inode: 11n, times },
        ],
        blocks: [],
      })
    using first = state.beginListing(VOLUME)
    await note(first)
    await append(journal, state, [put('d/f', fileVersion('2'))])
    expect([isListed(10n), isListed(11n)]).toEqual([true, true])
    await append(journal, state, [put('d/g', fileVersion('1'))])
    expect([isListed(10n), isListed(11n)]).toEqual([true, false])
    // It may have seen the directory before; another one that begins now changes nothing of that.
    using second = state.beginListing(VOLUME)
    await note(first)
    expect([isListed(10n), isListed(11n)]).toEqual([true, false])
    await note(second)
    expect([isListed(10n), isListed(11n)]).toEqual([true, true])
    await append(journal, state, [{ kind: 'remove', volume: VOLUME, path: path('d') }])
    expect([isListed(10n), isListed(11n)]).toEqual([false, false])
  })

  it('keeps of a block of inodes what a scan has seen of it until a record touches one of them', async () => {
    const directory = scratchDirectory()
    const journal = await openJournal(directory)
    const state = await openState(directory)
    await append(journal, state, [
      FIRST,
      put('', directoryVersion({ inode: 10n })),
      put('d', directoryVersion({ inode: 5000n })),
      put('d/f', fileVersion('1', { inode: 9000n })),
    ])
    const database = await Database.join(state.directory)
    onTestFinished(() => database.close())
    const rows = async (): Promise<string[]> =>
      (await database.page(rangeOfPrefix(blockPrefix(VOLUME)))).map(([key, row]) =>
        `${key.charCodeAt(key.length - 1)} ${row.toString()}`.trim(),
      )
    const note = (listing: Listing): Promise<void> =>
      state.noteSeen(listing, { listed: [], blocks: [0, 1, 2].map((block) => ({ block, row: 'seen' })) })
    expect(await rows()).toEqual(['0', '1', '2'])
    const noted = async (): Promise<string[]> => {
      using listing = state.beginListing(VOLUME)
      await note(listing)
      return await rows()
    }
    expect(await noted()).toEqual(['0 seen', '1 seen', '2 seen'])
    await append(journal, state, [put('d/f', fileVersion('2', { inode: 9000n }))])
    expect(await rows()).toEqual(['0 seen', '1 seen', '2'])
    await noted()
    // Another name in a directory, and another inode at a name.
    await append(journal, state, [put('d/g', fileVersion('1', { inode: 20_000n }))])
    expect(await rows()).toEqual(['0 seen', '1', '2 seen', '4'])
    await noted()
    await append(journal, state, [put('d/f', fileVersion('1', { inode: 11n }))])
    expect(await rows()).toEqual(['0', '1 seen', '2', '4'])
    await noted()
    await append(journal, state, [{ kind: 'rename', volume: VOLUME, path: path('d'), to: path('e') }])
    expect(await rows()).toEqual(['0', '1', '2 seen', '4'])
    await noted()
    await append(journal, state, [{ kind: 'remove', volume: VOLUME, path: path('e') }])
    expect(await rows()).toEqual(['0', '1', '2 seen', '4'])
  })

  it('keeps nothing of what a scan may have seen before a record that is being folded in, whenever it begins and whenever it tells', async () => {
    const { journal, state, database } = await openedWithRoot()
    const turns = async (count: number, isLong: boolean): Promise<void> => {
      for (let i = 0; i < count; i++) await (isLong ? new Promise((resolve) => setImmediate(resolve)) : Promise.resolve())
    }
    let [during, behind] = [0, 0]
    for (let round = 0; round < 200; round++) {
      const [before, between] = [round % 20, Math.floor(round / 20)]
      let isApplied = false
      // Another name in the directory: what was seen of that does not hold, nor of the block.
      const applying = append(journal, state, [put(`f${round}`, fileVersion('x', { inode: 11n }))]).then(() => void (isApplied = true))
      await turns(before, round % 2 === 0)
      using listing = state.beginListing(VOLUME)
      // A scan that begins behind it may be believed.
      if (isApplied) continue
      if (round % 5 === 0) await applying
      else await turns(between, round % 2 === 0)
      if (isApplied) behind += 1
      else during += 1
      const noting = state.noteSeen(listing, { listed: [{ inode: 10n, times: Buffer.alloc(24) }], blocks: [{ block: 0, row: 'seen' }] })
      await Promise.all([applying, noting])
      expect(database.getNow(blockKey(VOLUME, 0n))?.toString(), `round ${round}`).toBe('')
      expect(database.getNow(listedKey(VOLUME, 10n)), `round ${round}`).toBeUndefined()
    }
    expect(Math.min(during, behind)).toBeGreaterThan(5)
  })

  it('forgets what scans have seen, and remembers under which rules they have', async () => {
    const { state, database } = await openedWithRoot()
    using listing = state.beginListing(VOLUME)
    listing.dropped.clear()
    await state.noteSeen(listing, { listed: [{ inode: 10n, times: Buffer.alloc(24) }], blocks: [{ block: 0, row: 'seen' }] })
    expect(await state.rulesOf(VOLUME)).toBeUndefined()
    await state.beginRules(VOLUME, 'ä')
    expect(await state.rulesOf(VOLUME)).toEqual({ rules: 'ä', isVerified: false })
    await state.verifyRules(VOLUME, 'ä')
    expect(await state.rulesOf(VOLUME)).toEqual({ rules: 'ä', isVerified: true })
    // A scan under others that was cut short is no scan under these.
    await state.beginRules(VOLUME, 'b')
    await state.beginRules(VOLUME, 'ä')
    expect(await state.rulesOf(VOLUME)).toEqual({ rules: 'ä', isVerified: false })
    expect(database.getNow(blockKey(VOLUME, 0n))?.toString()).toBe('')
    expect(database.getNow(listedKey(VOLUME, 10n))).toBeUndefined()
  })

  it('owes a sweep from the first volume record of an epoch until the sweep', async () => {
    const directory = scratchDirectory()
    const journal = await openJournal(directory)
    const state = await openState(directory)
    await append(journal, state, [FIRST, { kind: 'volume', volume: VOLUME, root: '/v', mode: 'best-effort' }])
    expect(state.facts(VOLUME)).toEqual({ root: '/v', mode: 'best-effort', sweepSince: 2 })
    await append(journal, state, [{ kind: 'sweep', volume: VOLUME, since: 2 }])
    expect(state.facts(VOLUME)).toEqual({ root: '/v', mode: 'best-effort' })
    await append(journal, state, [{ kind: 'volume', volume: VOLUME, root: '/w', mode: 'best-effort' }])
    expect(state.facts(VOLUME)).toEqual({ root: '/w', mode: 'best-effort' })
  })

  it('marks a version whose content was lost, unless there is a newer one', async () => {
    const directory = scratchDirectory()
    const journal = await openJournal(directory)
    const state = await openState(directory)
    await append(journal, state, [FIRST, put('a', fileVersion('1')), put('b', fileVersion('1')), put('b', fileVersion('2'))])
    await append(journal, state, [
      { kind: 'lost', volume: VOLUME, path: path('a'), lostSeq: 2 },
      { kind: 'lost', volume: VOLUME, path: path('b'), lostSeq: 3 },
    ])
    expect(await state.at({ volume: VOLUME, path: path('a') })).toMatchObject({ isLost: true })
    expect(await state.at({ volume: VOLUME, path: path('b') })).toMatchObject({ isLost: false })
  })

  it('is walked in the order of a walk of the disk, across pages, with subtrees left out', async () => {
    const directory = scratchDirectory()
    const journal = await openJournal(directory)
    const state = await openState(directory)
    const paths = ['', 'a', 'a-', ...Array.from({ length: 1200 }, (_, i) => `a/${i}`), 'b'].map((text) => path(text))
    await append(journal, state, [FIRST, ...paths.map((at) => put(at, at === '' || at === 'a' ? directoryVersion() : fileVersion('x')))])
    expect(await pathsOf(state)).toEqual(paths.toSorted((a, b) => (pathKey(a) < pathKey(b) ? -1 : 1)))
    const walk = await walkOf(state)
    await walk.fetch()
    walk.skip()
    walk.skipTo(keyAfter('a'))
    await walk.fetch()
    expect(walk.key).toBe('a-')
  })
})
