/**
 * Bits and sectors that decay in every place where history lies, on every copy: each is found, and all of it is as it was afterwards.
 * What is appended to still has no parity: of that, decay.test.ts shows that damage is named exactly.
 */
import { chmodSync, closeSync, cpSync, existsSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { distrust, openCatalog } from '../../collector/catalog-opening.ts'
import { faultOfTables } from '../../collector/catalog-tables.ts'
import { checkRepository } from '../../collector/check.ts'
import { Checkpoints, catalogFromCheckpoint } from '../../collector/checkpoint.ts'
import { CopyCare } from '../../collector/copy-care.ts'
import type { NamedDefinition } from '../../collector/copy-definition.ts'
import { OfflineHistory } from '../../collector/offline-history.ts'
import { rebuildCatalog } from '../../collector/rebuild.ts'
import { replay } from '../../collector/replay.ts'
import { nameOf } from '../../collector/repository/copy.ts'
import type { FrameFileKind } from '../../collector/repository/file-header.ts'
import { parityPayloads } from '../../collector/repository/frame.ts'
import { DEFAULT_PARITY, decodeStripe } from '../../collector/repository/parity.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { scrubRepository } from '../../collector/scrub.ts'
import { silentLog } from '../../shared/log.ts'
import { label, ROOT } from '../../shared/path.ts'
import { FIRST, fileVersion, openJournal, put } from '../support/agent-parts.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { finish } from '../support/worked-archive.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const IS_LONG = process.env['PACSIMILE_SOAK'] !== undefined
/** Single bits, and sectors that read as zeros, in all. */
const BITS = IS_LONG ? 1000 : 100
const SECTORS = IS_LONG ? 200 : 20
const SECTOR_BYTES = 512
/** Packs and segments that are full; every second one is followed by a checkpoint. */
const SEALED = 6
const FILES = 6
const FILE_BYTES = 60_000
const XATTR_BYTES = 8000
const JOURNALLED = 600
const ALL_AT_ONCE = Number.POSITIVE_INFINITY
const READ_FAST = { parity: DEFAULT_PARITY, bytesPerSecond: ALL_AT_ONCE }
const KINDS = ['pack', 'segment'] as const

interface Place {
  readonly kind: FrameFileKind
  readonly number: number
}

class Archive {
  readonly store: Store
  readonly writer = new JournalWriter()
  readonly contents = new Map<string, Buffer>()
  readonly copy: string
  readonly catalog: string
  readonly random = new Random(SEED)
  readonly #journal = scratchDirectory()
  counts = { bits: 0, sectors: 0 }

  private constructor(store: Store) {
    this.store = store
    this.copy = join(store.directory, 'copy')
    this.catalog = join(store.directory, 'catalog')
  }

  static async make(): Promise<Archive> {
    const store = await Store.open({ parity: DEFAULT_PARITY })
    const archive = new Archive(store)
    const { writer, random, contents } = archive
    writer.put('d', directoryVersion())
    for (let i = 0; i <= SEALED; i++) {
      for (let k = 0; k < FILES; k++) {
        const content = random.bytes(1 + random.below(FILE_BYTES))
        contents.set(`d/${i}-${k}`, content)
        // Records that are large enough for a segment to have several stripes.
        const xattrs = [{ name: 'user.x', value: random.bytes(XATTR_BYTES).toString('latin1') }]
        writer.file(`d/${i}-${k}`, content, { xattrs }, 20_000)
      }
      await store.send(writer)
      // The last ones are being appended to.
      if (i === SEALED) break
      await store.seal(writer.agent)
      const { catalog, repository, ingest } = store
      if (i % 2 === 1) await new Checkpoints({ directory: archive.catalog, catalog, repository, ingest, log: silentLog }).make()
    }
    await store.stop()
    const { stdout, stderr } = await finish({ directory: store.directory, key: store.dataKey.toString('hex'), writer }, 'copy', 'DATA/copy')
    expect(stdout, stderr).toBe('done\n')
    const journal = await openJournal(archive.#journal)
    await journal.append([FIRST])
    for (let i = 0; i < JOURNALLED / 10; i++)
      await journal.append(Array.from({ length: 10 }, (_, k) => put(`f${i}-${k}`, fileVersion(`${i}`))))
    await journal.close()
    return archive
  }

  get isDone(): boolean {
    return this.counts.bits >= BITS && this.counts.sectors >= SECTORS
  }

  /** A bit, or a sector, of what is not zeros already, between two places. @returns where */
  damage(file: string, from: number, until: number): number {
    const isDue = this.counts.sectors * BITS <= this.counts.bits * SECTORS
    const isSector = isDue && until - from > SECTOR_BYTES
    const bytes = readFileSync(file)
    const at = from + this.random.below(until - from - (isSector ? SECTOR_BYTES : 0))
    const changed = isSector ? Buffer.alloc(SECTOR_BYTES) : Buffer.from([(bytes[at] ?? 0) ^ (1 << this.random.below(8))])
    if (bytes.subarray(at, at + changed.length).equals(changed)) return this.damage(file, from, until)
    overwrite(file, at, changed)
    if (isSector) this.counts.sectors += 1
    else this.counts.bits += 1
    return at
  }

  /** Somewhere in a file of frames that is full. */
  damageSealed(file: string): void {
    this.damage(file, 0, statSync(file).size)
  }

  /** The agent's journal is found damaged, or ends before what the agent's state has applied. */
  async damageJournal(): Promise<void> {
    const copy = join(scratchDirectory(), 'journal')
    cpSync(this.#journal, copy, { recursive: true })
    const log = readdirSync(join(copy, 'log')).find((name) => name.endsWith('.log')) ?? ''
    const file = join(copy, 'log', log)
    const at = this.damage(file, 0, statSync(file).size)
    let head = 0
    try {
      const journal = await openJournal(copy)
      head = journal.head.seq
      await journal.close()
    } catch (error) {
      expect(error, `byte ${at} of the journal`).toMatchObject({ code: 'damage' })
    }
    expect(head, `byte ${at} of the journal`).toBeLessThan(JOURNALLED + 1)
    rmSync(copy, { recursive: true })
  }

  /** A table is found; what is wrong with any other file comes out when the catalog is opened. It is the fold afterwards. */
  async damageCatalog(): Promise<void> {
    const { repositoryDirectory, dataKey } = this.store
    const files = readdirSync(this.catalog).filter((name) => /^\d+\.(ldb|log)$|^MANIFEST|^CURRENT$/.test(name))
    const written = files.filter((name) => statSync(join(this.catalog, name)).size > 0)
    const name = written[this.random.below(written.length)] ?? 'CURRENT'
    const at = this.damage(join(this.catalog, name), 0, statSync(join(this.catalog, name)).size)
    const fault = await faultOfTables(this.catalog)
    if (name.endsWith('.ldb')) expect(fault, `byte ${at} of ${name}`).toContain(name)
    if (fault !== undefined) distrust(this.catalog, fault)
    const repository = Repository.open(repositoryDirectory, dataKey)
    const catalog = await openCatalog(this.catalog, silentLog, (directory) => catalogFromCheckpoint(repository, directory))
    await replay(repository, catalog)
    await catalog.close()
    repository.close()
    const rebuilt = await rebuildCatalog({ directory: this.catalog, repositoryDirectory, dataKey })
    expect(rebuilt, `byte ${at} of ${name}`).toMatchObject({ before: 'equal', damage: [] })
    for (const aside of readdirSync(this.store.directory).filter((one) => one.startsWith('catalog.damaged-')))
      rmSync(join(this.store.directory, aside), { recursive: true })
  }

  /** Every version is there, to the last byte, and nothing is wrong. */
  async expectRestored(directory: string): Promise<void> {
    const { dataKey } = this.store
    expect(await checkRepository(directory, dataKey)).toMatchObject({ damage: [], affected: [] })
    for (const isFromCheckpoint of [true, false]) {
      await using history = await OfflineHistory.open(directory, dataKey, { isFromCheckpoint })
      const found = new Map<string, Buffer>()
      for await (const { path, version } of history.tree(this.writer.agent, VOLUME, ROOT, this.writer.end)) {
        if (version.kind !== 'file') continue
        const parts: Buffer[] = []
        for await (const chunk of history.chunks(version.chunks)) if ('bytes' in chunk) parts.push(Buffer.from(chunk.bytes))
        found.set(path, Buffer.concat(parts))
      }
      expect([...found.keys()].sort()).toEqual([...this.contents.keys()].sort())
      for (const [path, content] of this.contents) expect(found.get(path)?.equals(content), path).toBe(true)
    }
  }
}

function overwrite(file: string, offset: number, bytes: Buffer): void {
  const { mode } = statSync(file)
  chmodSync(file, 0o600)
  const fd = openSync(file, 'r+')
  writeSync(fd, bytes, 0, bytes.length, offset)
  closeSync(fd)
  chmodSync(file, mode & 0o777)
}

/** More blocks of one stripe than its parity can make again. */
function overwhelm(file: string): void {
  const [first] = [...parityPayloads(readFileSync(file))]
  if (first === undefined) throw new Error(`${file} has no parity`)
  const { blockBytes, stripes, parityBlocks } = decodeStripe(first.payload)
  for (let place = 0; place <= parityBlocks; place++)
    overwrite(file, place * stripes * blockBytes + Math.floor(blockBytes / 2), Buffer.alloc(16, 0xa5))
}

describe(`decay in every place (PACSIMILE_SEED=${SEED})`, () => {
  it(
    `of ${BITS} bits and ${SECTORS} sectors of the repository, its copy, the catalog, its checkpoints and a journal is found and mended`,
    async () => {
      const archive = await Archive.make()
      const { store, copy, random } = archive
      const repository = Repository.open(store.repositoryDirectory, store.dataKey)
      onTestFinished(() => repository.close())
      const sealed = KINDS.flatMap((kind) => repository.numbers(kind).map((number): Place => ({ kind, number }))).filter(
        ({ kind, number }) => repository.extentOf(kind, number)?.state === 'sealed',
      )
      expect(sealed.length).toBeGreaterThanOrEqual(2 * SEALED)
      const named: NamedDefinition = {
        name: label('usb', 'The name of a copy'),
        definition: { version: 1, url: `fs:${copy}`, added: new Date().toISOString() },
      }
      const end = (kind: FrameFileKind) => ({ file: (repository.numbers(kind).at(-1) ?? 0) + 1, offset: 0 })
      const committed = () => ({ packs: end('pack'), segments: end('segment') })
      const { dataKey } = store
      const care = new CopyCare({ dataDir: store.directory, repository, committed, dataKey, isDamaged: () => false })
      const { signal } = new AbortController()
      const copier = { redo: () => expect.unreachable(), holding: () => 'all' as const }
      const verified = () =>
        care.withVerifier(named, { copier, bytesPerSecond: ALL_AT_ONCE }, (verifier) => verifier.verify(true, signal), signal)

      for (let round = 0; !archive.isDone; round++) {
        // Either is what the other is mended from: never both at one place beyond parity.
        for (const { kind, number } of sealed) archive.damageSealed(repository.pathOf(kind, number))
        const lost = sealed[random.below(sealed.length)]
        if (lost !== undefined && round % 2 === 1) overwhelm(repository.pathOf(lost.kind, lost.number))
        const report = await scrubRepository(repository, dataKey, READ_FAST)
        const damaged = sealed.map(({ kind, number }) => repository.pathOf(kind, number))
        expect(new Set(report.found.map(({ file }) => file))).toEqual(new Set(damaged))
        // What parity cannot make again is named, and nothing else.
        const left = lost !== undefined && round % 2 === 1 ? [repository.pathOf(lost.kind, lost.number)] : []
        expect([...new Set(report.left.map(({ file }) => file))]).toEqual(left)
        if (lost !== undefined && round % 2 === 1) expect(await care.heal(named, lost.kind, lost.number)).toBe(true)
        expect(await scrubRepository(repository, dataKey, READ_FAST)).toMatchObject({ found: [], left: [] })

        for (const { kind, number } of sealed) archive.damageSealed(join(copy, nameOf(kind, number)))
        const { findings } = await verified()
        expect(new Set(findings.map(({ file }) => file))).toEqual(new Set(sealed.map(({ kind, number }) => nameOf(kind, number))))
        expect(findings.every(({ isRepaired }) => isRepaired)).toBe(true)
        expect(await verified()).toMatchObject({ findings: [], better: [] })

        await archive.damageCatalog()
        await archive.damageJournal()
      }
      for (const directory of [store.repositoryDirectory, copy]) await archive.expectRestored(directory)
      expect(existsSync(join(store.repositoryDirectory, 'heals.jsonl'))).toBe(true)
    },
    IS_LONG ? 3_600_000 : 240_000,
  )
})
