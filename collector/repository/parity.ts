/**
 * Parity of a file of frames: what was damaged in it is made again from what was not (docs/format.md, "Parity"). Pure.
 *
 * The file's bytes before its parity are cut into blocks. Every S-th block is of one stripe, so that a damage of many
 * consecutive blocks takes few from each; a stripe has a checksum for each block, which tells which are damaged, and parity
 * blocks (reed-solomon.ts), which replace as many. Each stripe is a frame of its own, so that damage to one costs one.
 * Invariant: nothing here needs a key, and a block is only given out where its checksum holds. It prevents a copy that lies on
 * a foreign host from rotting unseen, and a repair that makes things worse.
 */
import { crc32 } from 'node:zlib'
import { ByteReader, ByteWriter } from '../../shared/bytes.ts'
import { ReedSolomon, STRIPE_BLOCKS_MAX } from './reed-solomon.ts'

/** How much parity: of so many data blocks, so many may be damaged. */
export interface ParityShape {
  readonly dataBlocks: number
  readonly parityBlocks: number
}

export interface Stripe extends ParityShape {
  /** Of the file, from its beginning, that the parity is of. */
  readonly regionBytes: number
  readonly blockBytes: number
  /** Stripes of the region. */
  readonly stripes: number
  /** Which of them this is, from 0. */
  readonly number: number
  /** CRC-32 of its data blocks; those behind the end of the region are zeros. */
  readonly checksums: readonly number[]
  readonly parity: readonly Uint8Array[]
}

/** A part of the region. */
export interface Span {
  readonly offset: number
  readonly length: number
}

export interface RegionRepair {
  /** Blocks that were damaged and are right again. */
  readonly healed: readonly Span[]
  /** Blocks that are damaged still. */
  readonly lost: readonly Span[]
}

export const DEFAULT_PARITY: ParityShape = { dataBlocks: 10, parityBlocks: 2 }
const BLOCK_BYTES_MAX = 65_536
const BLOCK_BYTES_MIN = 512
/** A region has this many stripes before its blocks become larger. */
const STRIPES_WANTED = 8

/** Blocks of one size for the whole region: small ones for a small file, of which parity would else be the larger part. */
function blockBytesFor(regionBytes: number, dataBlocks: number): number {
  let bytes = BLOCK_BYTES_MIN
  while (bytes < BLOCK_BYTES_MAX && bytes * dataBlocks * STRIPES_WANTED < regionBytes) bytes *= 2
  return bytes
}

type Layout = Pick<Stripe, 'regionBytes' | 'blockBytes' | 'stripes'>

/** Where the block at a place of a stripe is. */
function spanOf({ regionBytes, blockBytes, stripes }: Layout, number: number, place: number): Span {
  const offset = (place * stripes + number) * blockBytes
  return { offset, length: Math.max(0, Math.min(blockBytes, regionBytes - offset)) }
}

/** A block of the region, filled up with zeros. */
function blockAt(region: Uint8Array, { offset, length }: Span, blockBytes: number): Uint8Array {
  if (length === blockBytes) return region.subarray(offset, offset + blockBytes)
  const block = new Uint8Array(blockBytes)
  block.set(region.subarray(offset, offset + length))
  return block
}

/** The stripes of a region, one after the other. */
export function* stripesOf(region: Uint8Array, { dataBlocks, parityBlocks }: ParityShape): Generator<Stripe> {
  const code = new ReedSolomon(dataBlocks, parityBlocks)
  const regionBytes = region.length
  const blockBytes = blockBytesFor(regionBytes, dataBlocks)
  const stripes = Math.max(1, Math.ceil(regionBytes / blockBytes / dataBlocks))
  const layout = { regionBytes, blockBytes, stripes }
  for (let number = 0; number < stripes; number++) {
    const blocks = Array.from({ length: dataBlocks }, (_, place) => blockAt(region, spanOf(layout, number, place), blockBytes))
    const checksums = blocks.map((block) => crc32(block))
    yield { ...layout, dataBlocks, parityBlocks, number, checksums, parity: code.encode(blocks) }
  }
}

/** Makes the damaged blocks of a region again, in place. Stripes that are not given are not looked at. */
export function repairRegion(region: Uint8Array, stripes: Iterable<Stripe>): RegionRepair {
  const healed: Span[] = []
  const lost: Span[] = []
  let code: ReedSolomon | undefined
  for (const stripe of stripes) {
    const { dataBlocks, parityBlocks, number, checksums, parity, blockBytes } = stripe
    const spans = checksums.map((_, place) => spanOf(stripe, number, place))
    const blocks = spans.map((span) => blockAt(region, span, blockBytes))
    const whole = blocks.map((block, place) => (crc32(block) === checksums[place] ? block : undefined))
    const damaged = spans.filter((_, place) => whole[place] === undefined)
    if (damaged.length === 0) continue
    if (code?.dataBlocks !== dataBlocks || code.parityBlocks !== parityBlocks) code = new ReedSolomon(dataBlocks, parityBlocks)
    const made = code.reconstruct([...whole, ...parity])
    if (made === undefined || made.some((block, place) => crc32(block) !== checksums[place])) {
      lost.push(...damaged)
      continue
    }
    for (const [place, span] of spans.entries()) {
      const block = made[place]
      if (whole[place] === undefined && block !== undefined) region.set(block.subarray(0, span.length), span.offset)
    }
    healed.push(...damaged)
  }
  return { healed, lost }
}

export function encodeStripe(stripe: Stripe): Buffer {
  const { regionBytes, blockBytes, stripes, number, dataBlocks, parityBlocks, checksums, parity } = stripe
  const to = new ByteWriter(64 + dataBlocks * 4 + parityBlocks * blockBytes)
  to.u64(regionBytes).u32(blockBytes).u32(stripes).u32(number).u8(dataBlocks).u8(parityBlocks)
  for (const checksum of checksums) to.u32(checksum)
  for (const block of parity) to.raw(block)
  return to.take()
}

/** @throws format-invalid */
export function decodeStripe(bytes: Buffer): Stripe {
  const from = new ByteReader(bytes, 'Parity frame')
  const regionBytes = from.u64()
  const [blockBytes, stripes, number] = [from.u32(), from.u32(), from.u32()]
  const [dataBlocks, parityBlocks] = [from.u8(), from.u8()]
  const isSound =
    blockBytes >= 1 && dataBlocks >= 1 && parityBlocks >= 1 && dataBlocks + parityBlocks <= STRIPE_BLOCKS_MAX && number < stripes
  const isCovering = regionBytes <= stripes * dataBlocks * blockBytes
  if (!isSound || !isCovering) from.fail('a stripe that cannot be')
  const checksums = Array.from({ length: dataBlocks }, () => from.u32())
  const parity = Array.from({ length: parityBlocks }, () => from.raw(blockBytes))
  from.end()
  return { regionBytes, blockBytes, stripes, number, dataBlocks, parityBlocks, checksums, parity }
}
