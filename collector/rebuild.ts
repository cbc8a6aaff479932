/**
 * Makes the catalog anew from the repository alone, and says whether the one before was equal to it.
 *
 * Order: the old catalog is opened, which is the collector's lock; the new one is made beside it; the two are compared, by the digest of all
 * entries, and entry by entry where that differs; then the new one takes the name, and an old one that was not equal stays beside it. Invariant: at every moment a
 * whole catalog, or none, has the name, and none is one that a collector makes by itself. It prevents a power cut during a rebuild from costing more than
 * the rebuild.
 */
import { existsSync, renameSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ByteWriter } from '../shared/bytes.ts'
import { type Digest, StreamingDigest } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { syncDirectory } from '../shared/files.ts'
import { Catalog, type Damage } from './catalog.ts'
import { factsOf } from './catalog-facts.ts'
import { clearLeftovers, faultOfFiles } from './catalog-opening.ts'
import { replay } from './replay.ts'
import { Repository } from './repository/repository.ts'

export interface RebuildRequest {
  /** Of the catalog. */
  readonly directory: string
  readonly repositoryDirectory: string
  readonly dataKey: Buffer
  readonly onProgress?: (records: number) => void
}

/** What the old catalog was. */
export type Before = 'equal' | 'different' | 'damaged' | 'missing'

export interface RebuildReport {
  readonly records: number
  readonly chunks: number
  /** What it took to fold the repository. */
  readonly seconds: number
  /** Of the repository. */
  readonly damage: readonly Damage[]
  readonly before: Before
  /** Entries of the two that are not the same, or that only one has. */
  readonly differences: number
  /** Why the old one could not be read; ''. */
  readonly reason: string
  /** Where the old one is, unless it was equal or missing. */
  readonly setAside: string | undefined
}

/** @throws locked while a collector runs; io, space, format-unknown: nothing has changed then */
export async function rebuildCatalog(request: RebuildRequest): Promise<RebuildReport> {
  const { directory, repositoryDirectory, dataKey, onProgress } = request
  const partial = join(dirname(directory), 'catalog.partial')
  const old = await openOld(directory)
  let fresh: Catalog | undefined
  try {
    clearLeftovers(directory)
    fresh = await Catalog.open(partial)
    const startedMs = performance.now()
    const repository = Repository.open(repositoryDirectory, dataKey)
    const { records, chunks, damage } = await replay(repository, fresh, { onProgress }).finally(() => repository.close())
    const seconds = (performance.now() - startedMs) / 1000
    const facts = await digestOfFacts(fresh)
    await fresh.close()
    const { before, differences, reason } = await compared(old, facts, partial)
    await close(old)
    const setAside = replace(directory, partial, before)
    return { records, chunks, seconds, damage, before, differences, reason, setAside }
  } catch (error) {
    await fresh?.close()
    await close(old)
    const failure = asPacsimileError(error, `Rebuilding ${directory}`)
    tryClearing(directory)
    throw failure
  }
}

/** Of entries that are hashed at once. */
const PIECE_BYTES = 64 << 10

type Old = Catalog | { readonly before: 'damaged' | 'missing'; readonly reason: string }

async function openOld(directory: string): Promise<Old> {
  if (!existsSync(directory)) return { before: 'missing', reason: '' }
  try {
    return await Catalog.open(directory)
  } catch (error) {
    return { before: 'damaged', reason: faultOfFiles(error) }
  }
}

/** `facts`: the digest of those of the new one. One is read after the other, for the tables of each are mapped; both at once only where they differ. */
async function compared(old: Old, facts: Digest, partial: string): Promise<{ before: Before; differences: number; reason: string }> {
  if (!(old instanceof Catalog)) return { ...old, differences: 0 }
  let isEqual: boolean
  try {
    isEqual = (await digestOfFacts(old)) === facts
  } catch (error) {
    return { before: 'damaged', reason: faultOfFiles(error), differences: 0 }
  }
  if (isEqual) return { before: 'equal', differences: 0, reason: '' }
  const fresh = await Catalog.open(partial)
  try {
    return { before: 'different', differences: await countDifferences(old, fresh), reason: '' }
  } finally {
    await fresh.close()
  }
}

async function digestOfFacts(catalog: Catalog): Promise<Digest> {
  const hash = new StreamingDigest()
  const piece = new ByteWriter(2 * PIECE_BYTES)
  for await (const { key, value } of factsOf(catalog)) {
    piece.bytes(key).bytes(value)
    if (piece.length < PIECE_BYTES) continue
    hash.update(piece.view())
    piece.reset()
  }
  hash.update(piece.view())
  return hash.finish()
}

/** Both are read once, in the order of their keys. */
async function countDifferences(old: Catalog, fresh: Catalog): Promise<number> {
  const [left, right] = [factsOf(old), factsOf(fresh)]
  let differences = 0
  let [a, b] = [await left.next(), await right.next()]
  while (a.done !== true || b.done !== true) {
    const order = a.done === true ? 1 : b.done === true ? -1 : a.value.key.compare(b.value.key)
    const isSame = order === 0 && a.done !== true && b.done !== true && a.value.value.equals(b.value.value)
    if (!isSame) differences += 1
    if (order <= 0) a = await left.next()
    if (order >= 0) b = await right.next()
  }
  return differences
}

/** @returns where the old one is */
function replace(directory: string, partial: string, before: Before): string | undefined {
  // One that was equal is nobody's to keep.
  const aside = before === 'equal' ? `${directory}.equal` : `${directory}.${before}-${Date.now()}`
  if (before !== 'missing') renameSync(directory, aside)
  try {
    renameSync(partial, directory)
  } catch (error) {
    if (before !== 'missing') renameSync(aside, directory)
    throw error
  }
  syncDirectory(dirname(directory))
  if (before !== 'equal') return before === 'missing' ? undefined : aside
  tryClearing(directory)
  return undefined
}

/** What cannot be removed is no failure of what was to be done: the next one removes it, or the next start. */
function tryClearing(directory: string): void {
  try {
    clearLeftovers(directory)
  } catch (error) {
    if (!(error instanceof PacsimileError)) throw error
  }
}

async function close(old: Old): Promise<void> {
  if (old instanceof Catalog) await old.close()
}
