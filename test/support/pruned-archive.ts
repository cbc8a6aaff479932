/** A store under a retention whose time passes when a test says so, with what every point of its history must give back. */
import { join } from 'node:path'
import { expect } from 'vitest'
import { checkRepository } from '../../collector/check.ts'
import type { Copies } from '../../collector/copies.ts'
import type { History } from '../../collector/history.ts'
import { Prune, type PruneReport } from '../../collector/prune.ts'
import { rebuildCatalog } from '../../collector/rebuild.ts'
import type { Hold } from '../../collector/repository/ledger-entry.ts'
import type { Retention, RetentionPolicy } from '../../collector/retention.ts'
import { Ticks } from '../../collector/ticks.ts'
import { silentLog } from '../../shared/log.ts'
import { label, type RelativePath, ROOT } from '../../shared/path.ts'
import { comparePositions, type Position } from '../../shared/record.ts'
import { MemoryTree } from '../../shared/tree.ts'
import type { FileVersion } from '../../shared/version.ts'
import { JournalWriter, VOLUME } from './journal-writer.ts'
import { Store } from './store.ts'

export const HOUR_MS = 3_600_000
export const DAY_MS = 24 * HOUR_MS
export const NONE: Retention = { all: 0, hourly: 0, daily: 0, monthly: 0, worm: 0 }
export const START_MS = Date.UTC(2026, 0, 1)
export const QUARANTINE_MS = 3 * HOUR_MS

/** Where a tick stands. */
export interface Point {
  readonly wallMs: number
  /** By the collector's own clock. */
  readonly ageMs: number
  readonly position: Position
}

export class Archive {
  readonly store: Store
  readonly writer = new JournalWriter()
  policy: RetentionPolicy
  prune!: Prune
  ticks!: Ticks
  /** Where each tick stands. */
  readonly points: Point[] = []
  /** Places beside the repository, where there are any. */
  copies: Copies | undefined

  protected constructor(store: Store, retention: Partial<Retention>) {
    this.store = store
    this.policy = { others: { ...NONE, ...retention }, volumes: {} }
  }

  static async open(retention: Partial<Retention>): Promise<Archive> {
    const archive = new Archive(await Store.open(), retention)
    archive.store.wallMs = START_MS
    archive.begin()
    return archive
  }

  /** Of the catalog. */
  get directory(): string {
    return join(this.store.directory, 'catalog')
  }

  /** The parts that are made at each start. */
  begin(): void {
    const { catalog, repository, ingest, age } = this.store
    const { policy, directory } = this
    this.ticks = new Ticks({ catalog, repository, ingest, policy })
    this.prune = new Prune({
      directory,
      catalog,
      repository,
      ingest,
      ticks: this.ticks,
      policy,
      age,
      quarantineMs: QUARANTINE_MS,
      log: silentLog,
      onDeleting: (pack) => this.copies?.removeEverywhere('pack', pack),
    })
  }

  async restart(): Promise<void> {
    await this.store.stop()
    await this.store.start()
    this.begin()
  }

  /** What was sent is in files of its own. */
  protected endFiles(): void {
    this.store.repository.abandonOpenFiles()
  }

  /** Sends what was written, and lets an hour pass. */
  async hour(): Promise<void> {
    await this.send()
    this.pass(HOUR_MS)
    await this.ticks.tick()
    this.notePoint()
  }

  /** There is a tick of now. */
  protected notePoint(): void {
    this.points.push({ wallMs: this.store.wallMs ?? 0, ageMs: this.store.age.ms, position: this.writer.end })
  }

  async send(): Promise<void> {
    const session = await this.store.send(this.writer)
    expect(session.failures).toEqual([])
    this.endFiles()
    this.copies?.hint()
  }

  pass(ms: number): void {
    this.store.nowMs += ms
    this.store.wallMs = (this.store.wallMs ?? 0) + ms
  }

  /** Prunes twice: what the first one leaves, the second one deletes. */
  async pruneAll(): Promise<PruneReport> {
    await this.prune.run()
    this.store.repository.abandonOpenFiles()
    this.pass(QUARANTINE_MS + 1)
    return this.prune.run()
  }

  /** What is not to be had of the files at a position: by path, why. */
  async absent(position: Position, history: History = this.store.history): Promise<Map<RelativePath, string>> {
    const found = new Map<RelativePath, string>()
    for await (const entry of history.tree(this.writer.agent, VOLUME, ROOT, position)) {
      if (entry.version.kind !== 'file') continue
      if (entry.absent !== undefined) {
        found.set(entry.path, entry.absent)
        continue
      }
      for await (const chunk of history.chunks(entry.version.chunks)) if ('failure' in chunk) found.set(entry.path, chunk.failure)
    }
    return found
  }

  /** The files that were there at a position, by the fold of what was written. */
  truth(position: Position): Map<RelativePath, FileVersion> {
    const tree = new MemoryTree()
    for (const { record } of this.writer.written) if (comparePositions(record, position) <= 0) tree.apply(record)
    return new Map([...tree.within(ROOT)].flatMap(({ path, version }) => (version.kind === 'file' ? [[path, version]] : [])))
  }

  async listed(position: Position, history: History = this.store.history): Promise<Map<RelativePath, FileVersion>> {
    const found = new Map<RelativePath, FileVersion>()
    for await (const { path, version } of history.tree(this.writer.agent, VOLUME, ROOT, position))
      if (version.kind === 'file') found.set(path, version)
    return found
  }

  async expectWhole(): Promise<void> {
    const report = await checkRepository(this.store.repositoryDirectory, this.store.dataKey)
    expect(report).toMatchObject({ damage: [], affected: [] })
  }

  /** Stops the store. */
  async expectRebuilt(): Promise<void> {
    const { store } = this
    await store.stop()
    const { repositoryDirectory, dataKey } = store
    const report = await rebuildCatalog({ directory: join(store.directory, 'catalog'), repositoryDirectory, dataKey })
    expect(report).toMatchObject({ before: 'equal', differences: 0, damage: [] })
  }
}

export const hold = (name: string, pattern: string): Hold => ({
  name: label(name, 'Hold'),
  agent: label('pacs1', 'Agent'),
  volume: VOLUME,
  pattern,
  fromMs: undefined,
  untilMs: undefined,
})
