import { describe, expect, it } from 'vitest'
import type { History } from '../../collector/history.ts'
import { OfflineHistory } from '../../collector/offline-history.ts'
import type { RelativePath } from '../../shared/path.ts'
import type { Position } from '../../shared/record.ts'
import { MemoryTree } from '../../shared/tree.ts'
import type { FileVersion } from '../../shared/version.ts'
import { COPY_NAMES, CopiedArchive, type CopyName } from '../support/copied-archive.ts'
import { directoryVersion, VOLUME } from '../support/journal-writer.ts'
import { DAY_MS, HOUR_MS, hold, type Point } from '../support/pruned-archive.ts'
import { Random } from '../support/workload.ts'

const RETENTION = { all: 6 * HOUR_MS, hourly: DAY_MS, daily: 4 * DAY_MS }
const HOURS = 24 * 5
/** For each event. */
const STEP_HOURS = 12
const HELD = 'd0/f1' as RelativePath
/** Points that are looked at after each step; in the end all are. */
const LOOKED_AT = 4
/** Of the versions that are held, one of so many. */
const HELD_OF = 5
const GIVEN_SEED = process.env['PACSIMILE_SEED']
const SEEDS = GIVEN_SEED === undefined ? [1, 2] : [Number(GIVEN_SEED)]

const EVENTS = ['decayed', 'replaced', 'swapped', 'away', 'lost', 'lost behind', 'decayed here', 'gone here', 'epoch', 'restart'] as const
type HistoryEvent = (typeof EVENTS)[number]

function shuffled<Item>(items: readonly Item[], random: Random): Item[] {
  const left = [...items]
  return items.map(() => left.splice(random.below(left.length), 1)).flat()
}

/** The last version of a path that was whole, of those that lead to what it was at a position. */
function wholeBehind(archive: CopiedArchive, path: RelativePath, position: Position): FileVersion | undefined {
  const tree = new MemoryTree()
  let whole: FileVersion | undefined
  for (const { record } of archive.writer.written) {
    if (record.epoch > position.epoch || (record.epoch === position.epoch && record.seq > position.seq)) break
    for (const effect of tree.apply(record)) {
      if (effect.path !== path) continue
      if (effect.kind === 'gone' || effect.version.kind !== 'file') whole = undefined
      else if (effect.version.consistency !== 'torn') whole = effect.version
    }
  }
  return whole
}

class Model {
  readonly archive: CopiedArchive
  readonly #random: Random
  readonly #pool: Buffer[]
  readonly #heldAt: Position[] = []
  torn = 0
  promised = 0
  expired = 0

  constructor(archive: CopiedArchive, random: Random) {
    this.archive = archive
    this.#random = random
    this.#pool = Array.from({ length: 30 }, () => random.bytes(1000))
  }

  /** An hour of changes. */
  async hour(): Promise<void> {
    const { archive } = this
    const { writer } = archive
    const random = this.#random
    for (let step = random.below(5); step > 0; step--) {
      const path = `d${random.below(3)}/f${random.below(5)}` as RelativePath
      const there = archive.truth(writer.end)
      const action = random.below(10)
      if (action === 0 && there.has(path)) writer.remove(path)
      else if (action === 1 && there.has(path)) writer.rename(path, `d${random.below(3)}/r${random.below(3)}`)
      else {
        const parts = Array.from(
          { length: 1 + random.below(3) },
          () => (random.below(3) === 0 && random.pick(this.#pool)) || random.bytes(1000),
        )
        writer.file(path, Buffer.concat(parts), action === 2 ? { consistency: 'torn' } : {})
        if (path === HELD) this.#heldAt.push(writer.end)
      }
    }
    await archive.hour()
  }

  #isPromised(points: readonly Point[], i: number): boolean {
    const [before, point] = [points[i - 1], points[i]]
    if (point === undefined) return false
    const ageMs = this.archive.store.age.ms - point.ageMs
    const isDay = before === undefined || Math.floor(before.wallMs / DAY_MS) !== Math.floor(point.wallMs / DAY_MS)
    return ageMs <= RETENTION.hourly || (isDay && ageMs <= RETENTION.daily)
  }

  /** Of the running collector and of each place, or of one; some points, or all. */
  async check(of: 'one place' | 'each place', isAll = false): Promise<void> {
    const { archive } = this
    const { store } = archive
    await archive.copied()
    await this.#checkPlace('the running collector', store.history, isAll)
    const places = [store.repositoryDirectory, ...archive.complete.map((name) => archive.placeOf(name))]
    for (const place of of === 'each place' ? places : [this.#random.pick(places) ?? '']) {
      await using history = await OfflineHistory.open(place, store.dataKey)
      expect(history.damage, place).toEqual([])
      await this.#checkPlace(place, history, isAll)
    }
  }

  async #checkPlace(place: string, history: History, isAll: boolean): Promise<void> {
    const { archive } = this
    const { points, writer } = archive
    const chosen = isAll ? points.keys() : Array.from({ length: LOOKED_AT }, () => this.#random.below(points.length))
    for (const i of chosen) {
      const point = points[i]
      if (point === undefined) continue
      const what = `point ${i} of ${points.length} in ${place}`
      const truth = archive.truth(point.position)
      expect(await archive.listed(point.position, history), what).toEqual(truth)
      const absent = await archive.absent(point.position, history)
      for (const reason of absent.values()) expect(reason, what).toBe('expired')
      this.expired += absent.size
      if (!this.#isPromised(points, i)) continue
      this.promised += 1
      expect(absent, what).toEqual(new Map())
      for (const [path, version] of truth) if (version.consistency === 'torn') await this.#checkStandIn(history, path, point.position, what)
    }
    // What is now, and what is held, whatever its age.
    expect(await archive.absent(writer.end, history), place).toEqual(new Map())
    const held = isAll ? this.#heldAt : this.#heldAt.filter(() => this.#random.below(HELD_OF) === 0)
    for (const position of held) expect((await archive.absent(position, history)).has(HELD), place).toBe(false)
  }

  /** Where a version is torn, the one that a restore gives in its place. */
  async #checkStandIn(history: History, path: RelativePath, position: Position, what: string): Promise<void> {
    const { writer, store } = this.archive
    const whole = wholeBehind(this.archive, path, position)
    const catalog = history instanceof OfflineHistory ? history.catalog : store.catalog
    const entry = await catalog.lastWhole(writer.agent, VOLUME, path, position)
    expect(entry?.version, `${path} before it was torn, at ${what}`).toEqual(whole)
    if (whole === undefined) return
    this.torn += 1
    for await (const chunk of history.chunks(whole.chunks)) expect('failure' in chunk ? chunk.failure : '', what).toBe('')
  }

  async happens(event: HistoryEvent): Promise<void> {
    const { archive } = this
    const random = this.#random
    const name = random.pick(COPY_NAMES) ?? 'a'
    switch (event) {
      case 'decayed':
        return archive.decayed(name, random)
      case 'replaced':
        return archive.replaced(name, false)
      case 'swapped':
        return archive.replaced(name, true)
      case 'away':
        archive.away(name)
        await this.#hoursAndPrune()
        return archive.back(name)
      case 'lost':
        await archive.copied()
        return archive.lost(name)
      case 'lost behind':
        return this.#lostBehind(name)
      case 'decayed here':
        expect(await archive.decayedHere(random, 'rotten')).toEqual([])
        return
      case 'gone here':
        expect(await archive.decayedHere(random, 'gone')).toEqual([])
        return
      case 'epoch':
        archive.writer.beginEpoch('state-lost')
        return archive.send()
      case 'restart':
        return archive.restart()
    }
  }

  async #hoursAndPrune(): Promise<void> {
    for (let i = 0; i < 3; i++) await this.hour()
    await this.archive.pruneAll()
    for (let i = 0; i < 3; i++) await this.hour()
  }

  /** The copy that is left lacks the last hours, and what was pruned in them. */
  async #lostBehind(name: CopyName): Promise<void> {
    const { archive } = this
    await archive.copied()
    archive.away(name)
    await this.#hoursAndPrune()
    const before = archive.writer.end
    await archive.lost(name)
    expect(archive.writer.end.epoch).toBe(before.epoch + 1)
    this.#heldAt.splice(0, this.#heldAt.length, ...this.#heldAt.filter((at) => archive.has(at)))
  }
}

describe('a random history with copies, of which some are lost', () => {
  it.each(SEEDS)(
    'keeps every point that the retention promises, in the repository and in each complete copy, after every step (seed %i)',
    async (seed) => {
      const random = new Random(seed)
      const archive = await CopiedArchive.open(RETENTION)
      const model = new Model(archive, random)
      await archive.send()
      await archive.prune.hold(hold('held', HELD))
      for (let d = 0; d < 3; d++) archive.writer.put(`d${d}`, directoryVersion())
      const events = shuffled(EVENTS, random)
      let retired = 0
      for (let hour = 0; hour < HOURS; hour++) {
        await model.hour()
        if (hour % STEP_HOURS !== STEP_HOURS - 1) continue
        const event = events.shift()
        if (event !== undefined) await model.happens(event)
        await model.check('one place')
        retired += (await archive.pruneAll()).retired
        archive.store.repository.abandonOpenFiles()
        await model.check('each place')
      }
      expect(events).toEqual([])
      await model.check('each place', true)
      expect(retired).toBeGreaterThan(5)
      expect(model.promised).toBeGreaterThan(100)
      expect(model.expired).toBeGreaterThan(100)
      expect(model.torn).toBeGreaterThan(10)
      await archive.expectWhole()
      await archive.expectCopiesWhole()
      await archive.expectRebuilt()
    },
    480_000,
  )
})
