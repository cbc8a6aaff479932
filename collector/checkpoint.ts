/**
 * Checkpoints: the files of the catalog kept in the repository, so that opening one that is gone, or a bare repository, folds the
 * tail behind the last checkpoint and not all of history.
 *
 * LevelDB's tables never change once written, and its manifest says which of them make a state: hard links to them, with a manifest that did not change meanwhile, are
 * an older whole state of the catalog, which says by itself what it reflects. The tables are stored as chunks, each once,
 * and an entry of the ledger names them. Order: the tables are durable before that entry. Invariant: a checkpoint is a shortcut and never the truth: what is
 * made from one is walked like any catalog that is opened, and where anything is wrong with it everything is folded. `check` and `rebuild` do not
 * look at it. It prevents a fault of the catalog from outliving the catalog.
 */
import { linkSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { type Digest, digestOf } from '../shared/digest.ts'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { removeTree, syncDirectory } from '../shared/files.ts'
import { CHUNK_BYTES_MAX } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import { storedForm } from '../shared/stored-form.ts'
import type { Catalog } from './catalog.ts'
import { keys } from './catalog-keys.ts'
import { faultOfTable } from './catalog-tables.ts'
import type { Ingest } from './ingest.ts'
import { checkpointsOf, gapsInCatalog } from './ledger-view.ts'
import type { FramePlace } from './repository/frame-file.ts'
import { type CheckpointChunk, type CheckpointFile, decodeLedgerEntry, type LedgerEntry } from './repository/ledger-entry.ts'
import type { Repository } from './repository/repository.ts'

/** Segments of so many bytes behind the last checkpoint are reason enough for another one: some 500,000 records. */
const SEGMENT_BYTES = 64 << 20
const LOOK_MS = 60_000
const LINK_ATTEMPTS_MAX = 20
const LINK_PAUSE_MS = 100
/** Older ones may lead to tables that are gone. */
const CHECKPOINTS_TRIED = 2

export interface CheckpointsParts {
  /** Of the catalog. */
  readonly directory: string
  readonly catalog: Catalog
  readonly repository: Repository
  readonly ingest: Ingest
  readonly log: Log
}

export class Checkpoints {
  readonly #parts: CheckpointsParts
  /** By inode: what tables of the last checkpoint were stored as. A table is never written again. */
  #stored: ReadonlyMap<number, readonly CheckpointChunk[]> = new Map()

  constructor(parts: CheckpointsParts) {
    this.#parts = parts
  }

  /** Until the signal is given. What goes wrong with one costs nothing but the next one. */
  async run(signal: AbortSignal): Promise<void> {
    let told = ''
    while (!signal.aborted) {
      // A pause that is broken off is over.
      await setTimeout(LOOK_MS, undefined, { signal }).catch(() => {})
      if (signal.aborted || !this.#parts.ingest.isProven) continue
      try {
        if ((await this.#bytesBehind()) >= SEGMENT_BYTES) await this.make()
      } catch (error) {
        const reason = reasonOf(error)
        // While something is damaged it is the same each time.
        if (reason !== told) this.#parts.log.warn('no checkpoint could be made', { reason })
        told = reason
      }
    }
  }

  /** Bytes of segments that were written since the last one. */
  async #bytesBehind(): Promise<number> {
    const { catalog, repository } = this.#parts
    const last = (await checkpointsOf(catalog)).at(-1)
    const numbers = repository.numbers('segment')
    const since = last?.body.kind === 'checkpoint' ? last.body.segment : 0
    return numbers.filter((number) => number > since).reduce((sum, number) => sum + repository.sizeOf('segment', number), 0)
  }

  /** @throws io, space */
  async make(): Promise<void> {
    const { directory, catalog, ingest, repository, log } = this.#parts
    // What the catalog lacks now it would lack for everybody who begins here.
    const [gap] = await gapsInCatalog(catalog)
    if (gap !== undefined) throw new PacsimileError('damage', `The catalog may lack something: ${gap}`)
    const links = `${directory}.links`
    const startedMs = performance.now()
    try {
      const names = await linkTables(directory, links)
      const segment = repository.end('segment').file
      const files: CheckpointFile[] = []
      const stored = new Map<number, readonly CheckpointChunk[]>()
      for (const name of names) {
        const path = join(links, name)
        const fault = name.endsWith('.ldb') ? faultOfTable(path) : undefined
        if (fault !== undefined) throw new PacsimileError('damage', `The catalog's table ${name} is damaged: ${fault}`)
        const chunks = await this.#store(path)
        files.push({ name, chunks })
        if (name.endsWith('.ldb')) stored.set(statSync(path).ino, chunks)
      }
      await ingest.note(() => [{ kind: 'checkpoint', segment, files }])
      this.#stored = stored
      log.info('a checkpoint of the catalog is made', { files: names.length, seconds: (performance.now() - startedMs) / 1000 })
    } finally {
      this.#unlink(links)
    }
  }

  /** What is left of it is removed by the next one, or at the next start. */
  #unlink(links: string): void {
    try {
      removeTree(links)
    } catch (error) {
      this.#parts.log.warn('the links that a checkpoint was made from are left', { reason: reasonOf(error) })
    }
  }

  /** What is stored already is not stored again. */
  async #store(path: string): Promise<readonly CheckpointChunk[]> {
    const { catalog, ingest } = this.#parts
    const { ino } = statSync(path)
    const known = this.#stored.get(ino)
    if (known !== undefined) return known
    // One table after the other, with time for everything else.
    await setImmediate()
    const bytes = readFileSync(path)
    const chunks: CheckpointChunk[] = []
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES_MAX) {
      const plain = bytes.subarray(at, at + CHUNK_BYTES_MAX)
      const digest = digestOf(plain)
      if (catalog.chunk(digest) === undefined) await ingest.move({ digest, plainLength: plain.length, ...storedForm(plain, undefined) })
      const place = catalog.chunk(digest)
      if (place === undefined) throw new PacsimileError('io', `What was stored of ${path} cannot be found`)
      chunks.push({ digest, length: plain.length, place })
    }
    return chunks
  }
}

/** Links to what makes one state of the catalog, and copies of what grows. @returns their names */
async function linkTables(directory: string, links: string): Promise<string[]> {
  for (let attempt = 0; attempt < LINK_ATTEMPTS_MAX; attempt++) {
    removeTree(links)
    mkdirSync(links, { mode: 0o700 })
    const before = stateOf(directory)
    const tables = tablesIn(directory)
    const isLinked = tables.every((name) => wasLinked(join(directory, name), join(links, name)))
    const after = stateOf(directory)
    if (isLinked && before.name === after.name && before.manifest.equals(after.manifest)) {
      writeFileSync(join(links, before.name), before.manifest)
      writeFileSync(join(links, 'CURRENT'), `${before.name}\n`)
      return [...tables, before.name, 'CURRENT']
    }
    await setTimeout(LINK_PAUSE_MS)
  }
  throw new PacsimileError('io', `The tables of ${directory} change too fast to be linked`)
}

function tablesIn(directory: string): string[] {
  return readdirSync(directory).filter((name) => /^\d+\.ldb$/.test(name))
}

function stateOf(directory: string): { readonly name: string; readonly manifest: Buffer } {
  const name = readFileSync(join(directory, 'CURRENT'), 'latin1').trim()
  return { name, manifest: readFileSync(join(directory, name)) }
}

/** False where it was removed meanwhile. */
function wasLinked(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    return false
  }
}

/**
 * Makes the files of a catalog from the newest checkpoint that can be read whole. The directory must not be there yet, and is there
 * only if this returns true.
 */
export function catalogFromCheckpoint(repository: Repository, directory: string): boolean {
  const partial = `${directory}.partial`
  let tried = 0
  for (const { body } of newestFirst(repository)) {
    if (body.kind !== 'checkpoint') continue
    if (writeFiles(repository, body.files, partial)) {
      renameSync(partial, directory)
      syncDirectory(dirname(directory))
      return true
    }
    tried += 1
    if (tried === CHECKPOINTS_TRIED) return false
  }
  return false
}

/** What was damaged in another place than this repository's is nothing that can be looked at here. */
export async function forgetForeignDamage(catalog: Catalog, repository: Repository): Promise<void> {
  const foreign = (await catalog.damage()).filter(({ file }) => !file.startsWith(`${repository.directory}/`))
  await catalog.write(foreign.map(({ file, offset }) => ({ type: 'del', key: keys.damage(file, offset) })))
}

function writeFiles(repository: Repository, files: readonly CheckpointFile[], directory: string): boolean {
  removeTree(directory)
  mkdirSync(directory, { mode: 0o700 })
  const read = chunkReader(repository, files)
  try {
    for (const { name, chunks } of files) writeFileSync(join(directory, name), Buffer.concat(chunks.map(read)), { flush: true })
    syncDirectory(directory)
    return true
  } catch (error) {
    removeTree(directory)
    const failure = asPacsimileError(error, `Making ${directory} from a checkpoint`)
    if (failure.code === 'space') throw failure
    return false
  }
}

/** Reads a chunk where it stood, else where it was moved to. @throws damage, io */
function chunkReader(repository: Repository, files: readonly CheckpointFile[]): (chunk: CheckpointChunk) => Buffer {
  let moved: ReadonlyMap<Digest, FramePlace> | undefined
  return ({ digest, place }) => {
    try {
      return repository.readChunk(place, digest)
    } catch (error) {
      if (!(error instanceof PacsimileError)) throw error
      moved ??= placesOf(repository, new Set(files.flatMap(({ chunks }) => chunks.map(({ digest: name }) => name))))
      const now = moved.get(digest)
      if (now === undefined) throw error
      return repository.readChunk(now, digest)
    }
  }
}

/** Where chunks stand now, in whatever pack. */
function placesOf(repository: Repository, names: ReadonlySet<Digest>): Map<Digest, FramePlace> {
  const found = new Map<Digest, FramePlace>()
  for (const number of repository.numbers('pack')) {
    try {
      const file = repository.file('pack', number)
      for (const frame of file.sealedIndex() ?? file.scan({ bodies: false }))
        if (!('kind' in frame && frame.kind === 'damage') && frame.type === 'chunk' && names.has(frame.digest))
          found.set(frame.digest, { file: number, offset: frame.offset, storedLength: frame.storedLength })
    } catch (error) {
      if (!(error instanceof PacsimileError)) throw error
      // A pack that cannot be opened holds nothing that could be read.
    }
  }
  return found
}

/** The entries of the ledger that stand in the repository, newest segment first, without opening anything else. */
function* newestFirst(repository: Repository): Generator<LedgerEntry> {
  for (const number of repository.numbers('segment').reverse()) {
    const found: LedgerEntry[] = []
    try {
      const file = repository.file('segment', number)
      for (const frame of file.scan({ bodies: false }))
        if (frame.kind === 'frame' && frame.type === 'ledger')
          found.push(decodeLedgerEntry(file.read(frame.offset, frame.storedLength, frame.digest)))
    } catch (error) {
      if (!(error instanceof PacsimileError)) throw error
      // Whoever folds it says so.
    }
    yield* found.reverse()
  }
}
