/**
 * An archive under a retention with two copies in directories, kept and healed by the collector's own parts, and what can happen to
 * it: a copy is damaged, lost, replaced or away; the repository is damaged, or lost and made again from a copy.
 */
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import type { Damage } from '../../collector/catalog.ts'
import { checkRepository } from '../../collector/check.ts'
import { ChunkHealer } from '../../collector/chunk-heal.ts'
import { Copies } from '../../collector/copies.ts'
import type { NamedDefinition } from '../../collector/copy-definition.ts'
import { Damages } from '../../collector/damages.ts'
import { FileHealer } from '../../collector/file-heal.ts'
import { initFrom } from '../../collector/init-from.ts'
import type { PruneReport } from '../../collector/prune.ts'
import { formatSlot, sealSlot } from '../../collector/repository/key-slot.ts'
import { createKeyFile, readKeyFile } from '../../collector/repository/keys.ts'
import { DEFAULT_PARITY } from '../../collector/repository/parity.ts'
import type { Retention } from '../../collector/retention.ts'
import { SCRUBBED_KINDS } from '../../collector/scrub.ts'
import { ScrubRounds } from '../../collector/scrub-rounds.ts'
import { ScrubThread } from '../../collector/scrub-thread.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { silentLog } from '../../shared/log.ts'
import { label } from '../../shared/path.ts'
import { comparePositions, type Position } from '../../shared/record.ts'
import { Archive, type Point, START_MS } from './pruned-archive.ts'
import { scratchDirectory } from './scratch.ts'
import { Store } from './store.ts'
import { until } from './until.ts'
import type { Random } from './workload.ts'

export const COPY_NAMES = ['a', 'b'] as const
export type CopyName = (typeof COPY_NAMES)[number]

const SECONDS = 120
const ROUND_MS = 3_600_000
const READ_FAST = { parity: DEFAULT_PARITY, bytesPerSecond: Number.POSITIVE_INFINITY }
const never = new AbortController().signal

export class CopiedArchive extends Archive {
  readonly #places = scratchDirectory()
  readonly #away = new Set<CopyName>()
  /** Packs and segments go on growing for so many sends. */
  sendsPerFile = 3
  #sends = 0
  #kept!: Copies

  static override async open(retention: Partial<Retention>): Promise<CopiedArchive> {
    const archive = new CopiedArchive(await Store.open(), retention)
    archive.store.wallMs = START_MS
    const { repository, repositoryDirectory, dataKey } = archive.store
    createKeyFile(archive.#keyFile)
    const slot = sealSlot(repository.id, dataKey, { kind: 'key-file', bytes: readKeyFile(archive.#keyFile) })
    writeFileSync(join(repositoryDirectory, 'keys', `${slot.id}.json`), formatSlot(slot))
    archive.begin()
    for (const name of COPY_NAMES) await archive.#kept.add(archive.#named(name))
    onTestFinished(() => archive.#kept[Symbol.asyncDispose]())
    return archive
  }

  override begin(): void {
    super.begin()
    const { directory, repository, ingest, dataKey } = this.store
    this.#kept = Copies.open({
      dataDir: directory,
      repository,
      committed: () => ingest.durable,
      ackCopies: 1,
      dataKey,
      isDamaged: () => false,
      scrub: undefined,
      log: silentLog,
    })
    this.copies = this.#kept
  }

  protected override endFiles(): void {
    this.#sends += 1
    if (this.#sends % this.sendsPerFile === 0) super.endFiles()
  }

  override async restart(): Promise<void> {
    await this.#kept[Symbol.asyncDispose]()
    await super.restart()
  }

  override async pruneAll(): Promise<PruneReport> {
    const report = await super.pruneAll()
    this.notePoint()
    return report
  }

  get #keyFile(): string {
    return join(this.#places, 'repository.key')
  }

  placeOf(name: CopyName): string {
    return join(this.#places, name)
  }

  /** Those that can be reached. */
  get complete(): CopyName[] {
    return COPY_NAMES.filter((name) => !this.#away.has(name))
  }

  #named(name: CopyName): NamedDefinition {
    return {
      name: label(name, 'Copy'),
      definition: { version: 1, url: `fs:${this.placeOf(name)}`, added: new Date(START_MS).toISOString() },
    }
  }

  /** Every copy that can be reached has everything. */
  async copied(): Promise<void> {
    this.#kept.hint()
    await until(`the copies are current (${JSON.stringify(this.#kept.status)})`, SECONDS, () => {
      const reached = this.#kept.status.filter(({ name }) => !this.#away.has(name as CopyName))
      return reached.every(({ state, behindBytes }) => state === 'current' && behindBytes === 0) ? true : undefined
    })
  }

  /** Whether a record is in the history. */
  has(position: Position): boolean {
    return this.writer.written.some(({ record }) => comparePositions(record, position) === 0)
  }

  // ---- what happens to a copy --------------------------------------------------------------------------------------

  /** Its disk is not there for now. */
  away(name: CopyName): void {
    renameSync(this.placeOf(name), `${this.placeOf(name)}.away`)
    this.#away.add(name)
  }

  /** It is there again, and catches up. */
  async back(name: CopyName): Promise<void> {
    renameSync(`${this.placeOf(name)}.away`, this.placeOf(name))
    this.#away.delete(name)
    await this.copied()
  }

  /** Its disk is lost, and another one is there: empty, as `copy remove` and `copy add` expect it, or already mounted before. */
  async replaced(name: CopyName, isMounted: boolean): Promise<void> {
    rmSync(this.placeOf(name), { recursive: true })
    if (isMounted) {
      mkdirSync(this.placeOf(name))
      await until('the copy is failing', SECONDS, () =>
        this.#kept.status.find((status) => status.name === name)?.state === 'failing' ? true : undefined,
      )
    }
    await this.#kept.remove(name)
    await this.#kept.add(this.#named(name))
    await this.copied()
  }

  /** Bytes of it rot; what a verification repairs is right again. */
  async decayed(name: CopyName, random: Random): Promise<void> {
    await this.copied()
    for (const kind of SCRUBBED_KINDS) spoil(random.pick(filesOf(this.placeOf(name), kind)), random)
    const first = await this.#kept.verify(name, true, never)
    if (first.findings.length === 0) throw new Error('the damage was not found')
    // The copier writes it anew, in its own time.
    const deadline = Date.now() + SECONDS * 1000
    let left = await this.#kept.verify(name, false, never)
    while (left.findings.length > 0 && Date.now() < deadline) left = await this.#kept.verify(name, false, never)
    if (left.findings.length > 0) throw new Error(`damaged still: ${JSON.stringify(left.findings)}`)
  }

  // ---- what happens to the repository ------------------------------------------------------------------------------

  /** Bytes of it rot, or files are gone; a scrub puts them right. @returns what is damaged still */
  async decayedHere(random: Random, how: 'rotten' | 'gone'): Promise<readonly Damage[]> {
    await this.copied()
    for (const kind of SCRUBBED_KINDS) {
      const files = filesOf(this.store.repositoryDirectory, kind)
      // That a collector has lost the file that it writes nobody can tell it.
      const lost = random.pick(files.toSorted(byName).slice(0, -1))
      if (how === 'rotten') spoil(random.pick(files), random)
      else if (lost !== undefined) rmSync(lost)
    }
    return this.scrubbed()
  }

  /** Every file that should be there is scrubbed, and healed as the collector does. @returns what is damaged still */
  async scrubbed(): Promise<readonly Damage[]> {
    const { directory, repository, catalog, ingest, dataKey } = this.store
    const ask = (): Promise<never> => Promise.reject(new PacsimileError('agent-unreachable', 'There is no agent'))
    const fromCopies = this.#kept.chunks.bind(this.#kept)
    const chunks = new ChunkHealer({ catalog, repository, ingest, replica: undefined, fromCopies, ask })
    const fromCopy = this.#kept.heal.bind(this.#kept)
    const files = new FileHealer({ repository, ingest, chunks, fromCopy, log: silentLog })
    const damages = await Damages.open(catalog)
    await using thread = new ScrubThread(dataKey, READ_FAST)
    const failed: Error[] = []
    const rounds = new ScrubRounds({
      dataDir: directory,
      repository,
      catalog,
      thread,
      damages,
      chunks,
      files,
      catalogDirectory: join(directory, 'catalog'),
      onCatalogDamage: (error) => failed.push(error),
      roundMs: ROUND_MS,
      log: silentLog,
    })
    const numbers = (kind: 'pack' | 'segment'): number[] => Array.from({ length: repository.numbers(kind).at(-1) ?? 0 }, (_, i) => i + 1)
    const stop = new AbortController()
    const running = rounds.run(stop.signal)
    await rounds.scrub(
      SCRUBBED_KINDS.flatMap((kind) => numbers(kind).map((number) => ({ kind, number }))),
      never,
    )
    stop.abort()
    await running
    expect(failed).toEqual([])
    return damages.list
  }

  /** It is lost; a new one is made from a copy, which may have been away for a while, and the other copy is begun anew. */
  async lost(from: CopyName): Promise<void> {
    const { store, writer } = this
    await this.#kept[Symbol.asyncDispose]()
    if (this.#away.delete(from)) renameSync(`${this.placeOf(from)}.away`, this.placeOf(from))
    await store.stop()
    rmSync(store.directory, { recursive: true })
    store.directory = join(scratchDirectory(), 'collector')
    await initFrom({
      dataDir: store.directory,
      listen: '127.0.0.1:0',
      from: this.#named(from),
      takesOver: true,
      secret: () => Promise.resolve({ kind: 'key-file', file: this.#keyFile }),
    })
    await store.start()
    this.begin()
    for (const other of COPY_NAMES) {
      if (other === from) continue
      // It is another collector's: what is there is nothing to go on with.
      rmSync(this.placeOf(other), { recursive: true, force: true })
      rmSync(`${this.placeOf(other)}.away`, { recursive: true, force: true })
      this.#away.delete(other)
      await this.#kept.add(this.#named(other))
    }
    this.#goOnFrom(writer.written.length)
    await this.send()
    await this.copied()
  }

  /** An agent whose acknowledged records are not all there begins a new epoch, with all files as they are. */
  #goOnFrom(written: number): void {
    const { store, writer } = this
    const end = store.catalog.chainEnd(writer.agent) ?? writer.end
    const length = writer.written.findLastIndex(({ record }) => comparePositions(record, end) <= 0) + 1
    store.holds(writer, length)
    if (length === written) return
    writer.beginEpoch('rewound')
    // What was not there is in nobody's history.
    writer.written.splice(length, written - length)
    const isThere = ({ position }: Point): boolean => comparePositions(position, end) <= 0
    this.points.splice(0, this.points.length, ...this.points.filter(isThere))
  }

  async expectCopiesWhole(): Promise<void> {
    for (const name of this.complete)
      expect(await checkRepository(this.placeOf(name), this.store.dataKey), name).toMatchObject({ damage: [], affected: [] })
  }
}

/** Their numbers are their names; the directories they are in are the last digits of these. */
function byName(a: string, b: string): number {
  return basename(a).localeCompare(basename(b))
}

function filesOf(repository: string, kind: 'pack' | 'segment'): string[] {
  const root = join(repository, `${kind}s`)
  return readdirSync(root).flatMap((shelf) => readdirSync(join(root, shelf)).map((name) => join(root, shelf, name)))
}

/** A few bytes in the middle of it. */
function spoil(file: string | undefined, random: Random): void {
  if (file === undefined) throw new Error('there is no file')
  const { size } = statSync(file)
  damageFile(file, Math.floor(size / 4) + random.below(Math.max(1, Math.floor(size / 2))))
}

/** Three bytes. */
export function damageFile(file: string, at: number): void {
  const { mode } = statSync(file)
  const bytes = readFileSync(file)
  for (let i = at; i < Math.min(bytes.length, at + 3); i++) bytes[i] = (bytes[i] ?? 0) ^ 0x55
  chmodSync(file, 0o600)
  writeFileSync(file, bytes)
  chmodSync(file, mode & 0o777)
}
