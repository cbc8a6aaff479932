/**
 * Repairs a sealed file of frames from its own parity.
 *
 * Order: what is right again is written to a new file and fsynced; it is read back frame by frame; only then it takes the
 * place of the damaged one. Invariant: the file that takes the place has blocks that are right again, no frame that is read from it
 * is worse than before, and whatever was whole is in it as it was. It prevents a repair that replaces damage by other damage, and one that a
 * crash leaves half done.
 */
import { type KeyObject, randomBytes } from 'node:crypto'
import { chmodSync, chownSync, closeSync, constants, fstatSync, fsyncSync, openSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { digestHex, digestOf } from '../../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../../shared/errors.ts'
import { syncDirectory, TEMPORARY_PREFIX, writeFully } from '../../shared/files.ts'
import { readFileAsItIs } from './disk-read.ts'
import type { FrameFileIdentity } from './file-header.ts'
import { FRAME_OVERHEAD_BYTES, isBare, parityPayloads } from './frame.ts'
import { type FoundFrame, FrameFile, type MakeParity } from './frame-file.ts'
import type { IndexedFrame } from './frame-index.ts'
import { decodeStripe, repairRegion, type Span, type Stripe } from './parity.ts'

/** A block that was made again. */
export interface Healed extends Span {
  /** BLAKE3 of the block as it was found, and as it is now, in hex. */
  readonly before: string
  readonly after: string
}

export interface FileRepair {
  readonly healed: readonly Healed[]
  /** What ends the file (parity, index, footer) was damaged, and was written anew. */
  readonly isEndHealed: boolean
  /** Blocks that are damaged still. */
  readonly lost: readonly Span[]
}

/** Undefined where nothing could be made better. @throws io, space: the file is as it was */
export async function repairFile(
  path: string,
  identity: FrameFileIdentity,
  dataKey: KeyObject,
  makeParity: MakeParity,
): Promise<FileRepair | undefined> {
  const { bytes, refused, uid, gid } = readDamaged(path)
  const stripes = stripesIn(bytes)
  const regionBytes = stripes[0]?.regionBytes ?? endOfContent(path, identity, dataKey)
  if (regionBytes === undefined) return undefined
  const region = Buffer.from(bytes.subarray(0, regionBytes))
  const { healed, lost } = repairRegion(region, stripes)
  // Of what the disk refuses there may be more to be had by other means than zeros.
  if (refused > 0 && lost.length > 0) return undefined
  const prefix = `${TEMPORARY_PREFIX}${basename(path)}-`
  const temporary = join(dirname(path), `${prefix}${randomBytes(6).toString('hex')}`)
  const writeBeside = (...parts: Buffer[]): void => {
    rmSync(temporary, { force: true })
    writeDurably(temporary, Buffer.concat(parts))
  }
  const damage = (of: string): number => damageOf(of, identity, dataKey)
  const end = bytes.subarray(regionBytes)
  let isEndHealed = false
  try {
    // What a repair left that was killed.
    for (const name of readdirSync(dirname(path))) if (name.startsWith(prefix)) rmSync(join(dirname(path), name))
    writeBeside(region, end)
    const left = damage(temporary)
    if (left > 0) {
      writeBeside(region)
      isEndHealed = await resealed(temporary, identity, dataKey, regionBytes, makeParity)
      if (!isEndHealed) {
        if (healed.length === 0 || left > damage(path)) return undefined
        writeBeside(region, end)
      }
    }
    // Whoever repairs may be root, and the collector is not.
    chownSync(temporary, uid, gid)
    chmodSync(temporary, 0o400)
    renameSync(temporary, path)
    syncDirectory(dirname(path))
    return { healed: healed.map((span) => described(span, bytes, region)), isEndHealed, lost }
  } catch (error) {
    throw asPacsimileError(error, `Repairing ${path}`)
  } finally {
    rmSync(temporary, { force: true })
  }
}

/** Of a file of which a part may be refused, all that there is, and whose it is. */
function readDamaged(path: string): ReturnType<typeof readFileAsItIs> & { readonly uid: number; readonly gid: number } {
  const fd = openSync(path, constants.O_RDONLY)
  try {
    const { uid, gid } = fstatSync(fd)
    return { ...readFileAsItIs(fd), uid, gid }
  } finally {
    closeSync(fd)
  }
}

/** The stripes of which the parity is whole. */
function stripesIn(bytes: Buffer): readonly Stripe[] {
  const byRegion = new Map<string, Map<number, Stripe>>()
  for (const { offset, payload } of parityPayloads(bytes)) {
    const stripe = stripeOf(payload)
    if (stripe === undefined || stripe.regionBytes > offset) continue
    const { regionBytes, blockBytes, stripes, dataBlocks, parityBlocks } = stripe
    const key = [regionBytes, blockBytes, stripes, dataBlocks, parityBlocks].join()
    const group = byRegion.get(key) ?? new Map<number, Stripe>()
    byRegion.set(key, group.set(stripe.number, stripe))
  }
  // Content may look like parity; it would have to look like all of a file's.
  const groups = [...byRegion.values()].sort((a, b) => b.size - a.size)
  return [...(groups[0]?.values() ?? [])]
}

/** Where content ends, by the index: what is left where all of a small file's parity is damaged, which the index may outlive. */
function endOfContent(path: string, identity: FrameFileIdentity, dataKey: KeyObject): number | undefined {
  let file: FrameFile
  try {
    file = FrameFile.open(path, identity, dataKey)
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'damage') return undefined
    throw error
  }
  try {
    let last: IndexedFrame | undefined
    for (const frame of file.sealedIndex() ?? []) last = frame
    return last === undefined ? undefined : last.offset + FRAME_OVERHEAD_BYTES + last.storedLength
  } finally {
    file.close()
  }
}

function stripeOf(payload: Buffer): Stripe | undefined {
  try {
    return decodeStripe(payload)
  } catch (error) {
    if (error instanceof PacsimileError) return undefined
    throw error
  }
}

function writeDurably(path: string, bytes: Buffer): void {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
  try {
    writeFully(fd, bytes, 0)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Gives the repaired frames an end of their own; false where one of them is damaged still. */
async function resealed(
  path: string,
  identity: FrameFileIdentity,
  dataKey: KeyObject,
  bytes: number,
  makeParity: MakeParity,
): Promise<boolean> {
  let file: FrameFile | undefined
  try {
    file = FrameFile.reopen(path, identity, dataKey)
    if (file === undefined || file.size !== bytes) return false
    for (const found of file.scan()) {
      if (found.kind === 'damage') return false
      if (!isBare(found.type)) file.read(found.offset, found.storedLength, found.digest)
    }
    await file.seal(makeParity)
    return damageOf(path, identity, dataKey) === 0
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'damage') return false
    throw error
  } finally {
    file?.close()
  }
}

/** In how many places a sealed file is not as it was written; a file of which the header is damaged, in all. */
function damageOf(path: string, identity: FrameFileIdentity, dataKey: KeyObject): number {
  let file: FrameFile
  try {
    file = FrameFile.open(path, identity, dataKey)
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'damage') return Number.POSITIVE_INFINITY
    throw error
  }
  try {
    let places = file.sealedIndex() === undefined ? 1 : 0
    for (const found of file.scan()) {
      if (found.kind === 'damage') places += 1
      else if (!isBare(found.type)) places += opens(file, found) ? 0 : 1
    }
    return places
  } finally {
    file.close()
  }
}

function opens(file: FrameFile, { offset, storedLength, digest }: FoundFrame): boolean {
  try {
    file.read(offset, storedLength, digest)
    return true
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'damage') return false
    throw error
  }
}

function described({ offset, length }: Span, bytes: Buffer, region: Buffer): Healed {
  const digestIn = (of: Buffer): string => digestHex(digestOf(of.subarray(offset, offset + length)))
  return { offset, length, before: digestIn(bytes), after: digestIn(region) }
}
