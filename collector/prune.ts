/**
 * Prune: carries out the retention. The only code that removes history.
 *
 * Order: what expires is in the ledger before anything of it goes; what is needed of a pack is durable in another one before the pack is
 * left; that it is left is in the ledger, with its chunks gone from the catalog in the same commit; its file stays for the quarantine; that it is
 * deleted is in the ledger before it is. Every step is a commit among those of agents, in their order. Invariant: a chunk that a kept version
 * names, or any record that is committed meanwhile, has a place from which it is read. A crash leaves what is
 * removed later, never a hole.
 */
import { unlinkSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError, reasonOf } from '../shared/errors.ts'
import { syncDirectory } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import { ranges } from './catalog-keys.ts'
import { distrust } from './catalog-opening.ts'
import { faultOfTables } from './catalog-tables.ts'
import { readChunkPlace } from './catalog-values.ts'
import { DigestSet } from './digest-set.ts'
import type { Ingest } from './ingest.ts'
import { holdsOf, retirementOf } from './ledger-view.ts'
import { type PrunePlan, planPrune, type WorkingPlan } from './prune-plan.ts'
import type { PruneOptions, Pruning } from './pruning.ts'
import { type Hold, LEDGER_ITEMS_MAX } from './repository/ledger-entry.ts'
import type { Repository } from './repository/repository.ts'
import type { RetentionPolicy } from './retention.ts'
import type { RunningTime } from './running-time.ts'
import type { Ticks } from './ticks.ts'

export interface PruneReport {
  readonly plan: PrunePlan
  /** Packs that were left, and of which the files were deleted. */
  readonly retired: number
  readonly deleted: number
  /** Of the deleted files. */
  readonly freedBytes: number
  /** Stored once more. */
  readonly movedBytes: number
  /** Packs that stay because something in them is needed and cannot be read, or was needed again meanwhile. */
  readonly kept: readonly { readonly pack: number; readonly reason: string }[]
}

export interface PruneParts {
  /** Of the catalog. */
  readonly directory: string
  readonly catalog: Catalog
  readonly repository: Repository
  readonly ingest: Ingest
  readonly ticks: Ticks
  readonly policy: RetentionPolicy
  readonly age: RunningTime
  readonly quarantineMs: number
  readonly log: Log
  /** A pack's file is about to be removed here, and is to be gone from every copy. @throws io, space */
  readonly onDeleting?: (pack: number) => void
  /** A pack's file is gone here. */
  readonly onDeleted?: (path: string) => Promise<void>
}

/** Packs whose chunks are looked up together, and chunks that are moved in one commit. */
const PACKS_AT_ONCE = 32
const MOVES_AT_ONCE = 64
/** What was needed again while it was being left is moved as well, so often. */
const ATTEMPTS_MAX = 3

export class Prune implements Pruning {
  readonly #parts: PruneParts
  #isRunning = false
  /** Rises with each hold: who plans without one that was set meanwhile stops. */
  #holds = 0

  constructor(parts: PruneParts) {
    this.#parts = parts
  }

  async plan(): Promise<PrunePlan> {
    return shownOf(await this.#plan(new DigestSet()))
  }

  #plan(needed: DigestSet): Promise<WorkingPlan> {
    const { catalog, repository, policy, age, quarantineMs } = this.#parts
    return planPrune({ catalog, repository, policy, nowMs: age.ms, quarantineMs }, needed)
  }

  async hold(hold: Hold): Promise<void> {
    if (this.#parts.catalog.volume(hold.agent, hold.volume) === undefined)
      throw new PacsimileError('not-found', `Nothing was ever received of ${hold.agent}:${hold.volume}`)
    if ((await this.holds()).some(({ name }) => name === hold.name))
      throw new PacsimileError('already-exists', `There is a hold ${hold.name} already`)
    this.#holds += 1
    await this.#parts.ingest.note(() => [{ kind: 'hold', hold }])
  }

  async release(name: Label): Promise<void> {
    if (!(await this.holds()).some((hold) => hold.name === name)) throw new PacsimileError('not-found', `There is no hold ${name}`)
    await this.#parts.ingest.note(() => [{ kind: 'release', name }])
  }

  holds(): Promise<Hold[]> {
    return holdsOf(this.#parts.catalog)
  }

  async run({ isDespiteDoubts = false }: PruneOptions = {}): Promise<PruneReport> {
    if (this.#isRunning) throw new PacsimileError('locked', 'Another prune is running')
    this.#isRunning = true
    const needed = new DigestSet()
    // Before anything is looked at: what is named from now on is needed, whatever the plan says.
    using stack = new DisposableStack()
    stack.use(this.#parts.ingest.whileNaming((name) => needed.add(name)))
    try {
      await this.#requireSoundCatalog()
      await this.#parts.ticks.notePolicy()
      await this.#parts.ticks.tick()
      const holds = this.#holds
      const plan = await this.#plan(needed)
      const [doubt] = plan.doubts
      if (doubt !== undefined && !isDespiteDoubts)
        throw new PacsimileError('damage', `What is needed is not known for sure, so nothing is removed: ${doubt}`)
      const run = new PruneRun(this.#parts, plan, () => this.#holds !== holds)
      return await run.report()
    } finally {
      this.#isRunning = false
    }
  }

  /** What is needed is what the catalog says: an entry that a flipped bit has hidden would be gone for ever. */
  async #requireSoundCatalog(): Promise<void> {
    const { directory } = this.#parts
    const fault = await faultOfTables(directory)
    if (fault === undefined) return
    // Whoever opens it next makes it anew.
    distrust(directory, fault)
    throw new PacsimileError(
      'damage',
      `The catalog is damaged (${fault}), so nothing is removed. Restart the collector, which makes it anew from the repository, and prune again`,
    )
  }
}

function shownOf({ volumes, packs, deletable, quarantined, deadBytes, doubts }: WorkingPlan): PrunePlan {
  return { volumes, packs, deletable, quarantined, deadBytes, doubts }
}

class PruneRun {
  readonly #parts: PruneParts
  readonly #plan: WorkingPlan
  readonly #isOutdated: () => boolean
  readonly #kept: { pack: number; reason: string }[] = []
  #retired = 0
  #deleted = 0
  #freedBytes = 0
  #movedBytes = 0

  constructor(parts: PruneParts, plan: WorkingPlan, isOutdated: () => boolean) {
    this.#parts = parts
    this.#plan = plan
    this.#isOutdated = isOutdated
  }

  async report(): Promise<PruneReport> {
    const { packs } = this.#plan
    await this.#expire()
    await this.#deleteFiles()
    for (let at = 0; at < packs.length; at += PACKS_AT_ONCE) {
      const numbers = packs.slice(at, at + PACKS_AT_ONCE).map(({ number }) => number)
      const chunks = await this.#chunksIn(new Set(numbers))
      for (const number of numbers) await this.#leave(number, chunks.get(number) ?? [])
    }
    return {
      plan: shownOf(this.#plan),
      retired: this.#retired,
      deleted: this.#deleted,
      freedBytes: this.#freedBytes,
      movedBytes: this.#movedBytes,
      kept: this.#kept,
    }
  }

  #stopIfOutdated(): void {
    if (this.#isOutdated())
      throw new PacsimileError('held', 'A hold was set while prune was running, and it stopped; what had expired by then stays expired')
  }

  async #expire(): Promise<void> {
    for (const [agent, positions] of this.#plan.expiring)
      for (const group of positions.groups(LEDGER_ITEMS_MAX)) await this.#expireOne(agent, group)
  }

  async #expireOne(agent: Label, positions: readonly Position[]): Promise<void> {
    await this.#parts.ingest.note(() => (this.#isOutdated() ? [] : [{ kind: 'expired', agent, positions }]))
    this.#stopIfOutdated()
  }

  /** Of packs that nothing has led to for the quarantine, and of those that an earlier run was about to delete. */
  async #deleteFiles(): Promise<void> {
    const { catalog, repository, ingest, log, onDeleting, onDeleted } = this.#parts
    const numbers = this.#plan.deletable.map(({ number }) => number).sort((a, b) => a - b)
    const fresh = numbers.filter((number) => retirementOf(catalog, number)?.deletedBy === 0)
    for (let at = 0; at < fresh.length; at += LEDGER_ITEMS_MAX)
      await ingest.note(() => [{ kind: 'deleted', packs: fresh.slice(at, at + LEDGER_ITEMS_MAX) }])
    for (const { number, bytes } of this.#plan.deletable) {
      const path = repository.pathOf('pack', number)
      repository.forget('pack', number)
      onDeleting?.(number)
      try {
        unlinkSync(path)
        syncDirectory(dirname(path))
      } catch (error) {
        throw asPacsimileError(error, `Deleting ${path}`)
      }
      this.#deleted += 1
      this.#freedBytes += bytes
      await onDeleted?.(path)
      log.info('a pack from which nothing is read any more was deleted', { file: path, bytes })
    }
  }

  async #chunksIn(packs: ReadonlySet<number>): Promise<Map<number, Digest[]>> {
    const found = new Map<number, Digest[]>()
    for await (const [key, value] of this.#parts.catalog.entries(ranges.chunks)) {
      const { file } = readChunkPlace(value)
      if (!packs.has(file)) continue
      const names = found.get(file) ?? []
      found.set(file, names)
      names.push(key.toString('latin1', 1) as Digest)
    }
    return found
  }

  /** By what is kept, by a record that came since, or by one that is on its way. */
  #isNeeded(name: Digest): boolean {
    return this.#plan.needed.has(name) || this.#parts.ingest.isPromised(name)
  }

  /** Stores what is needed of a pack once more, and leaves it. */
  async #leave(pack: number, names: readonly Digest[]): Promise<void> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const failure = await this.#move(
        pack,
        names.filter((name) => this.#isNeeded(name)),
      )
      if (failure !== undefined) {
        this.#kept.push({ pack, reason: failure })
        return
      }
      if (await this.#retire(pack, names)) {
        this.#retired += 1
        return
      }
      this.#stopIfOutdated()
    }
    this.#kept.push({ pack, reason: 'what is in it is needed again and again' })
  }

  /** @returns why not all of it could be moved */
  async #move(pack: number, names: readonly Digest[]): Promise<string | undefined> {
    const { catalog, repository, ingest } = this.#parts
    for (let at = 0; at < names.length; at += MOVES_AT_ONCE) {
      const moves: Promise<void>[] = []
      let failure: string | undefined
      for (const name of names.slice(at, at + MOVES_AT_ONCE)) {
        const place = catalog.chunk(name)
        if (place?.file !== pack) continue
        try {
          const payload = repository.readPayload(place, name)
          this.#movedBytes += payload.bytes.length
          moves.push(ingest.move(payload))
        } catch (error) {
          if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
          failure = reasonOf(error)
        }
      }
      await Promise.all(moves)
      if (failure !== undefined) return failure
    }
    return undefined
  }

  /** In the order of commits: whatever was named by now is known. @returns whether nothing of it was needed */
  async #retire(pack: number, names: readonly Digest[]): Promise<boolean> {
    let isLeft = false
    await this.#parts.ingest.note((batch) => {
      const here = names.filter((name) => batch.chunk(name)?.file === pack)
      if (this.#isOutdated() || here.some((name) => this.#isNeeded(name))) return []
      for (const name of here) batch.dropChunk(name)
      isLeft = true
      return [{ kind: 'retired', packs: [pack] }]
    })
    return isLeft
  }
}
