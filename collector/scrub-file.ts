/**
 * Scrubs one file of frames: reads every byte of it from the disk itself, and repairs it where it has parity.
 *
 * Invariant: what is called whole was read and matched its digests, after a repair once more. It prevents a scrub that believes
 * the page cache, or its own repair.
 */
import type { KeyObject } from 'node:crypto'
import { closeSync, openSync, readFileSync, statSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { digestHex, digestOf } from '../shared/digest.ts'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import type { Damage } from './catalog.ts'
import type { FrameFileIdentity } from './repository/file-header.ts'
import { type FileRepair, repairFile } from './repository/file-repair.ts'
import { frameBytes, isBare } from './repository/frame.ts'
import { FrameFile, type MakeParity, type ScannedFrame } from './repository/frame-file.ts'
import { encodeStripe, type ParityShape, stripesOf } from './repository/parity.ts'

/** `open`: it is, or was, appended to; `sealed`: it will never change, but has no parity. */
export type Protection = 'open' | 'sealed' | 'parity'

export interface ScrubbedFile {
  readonly path: string
  /** Read at first. */
  readonly bytes: number
  readonly protection: Protection
  /** Tells whether two sealed files hold the same frames; undefined where it is not sealed, or its index is damaged. */
  readonly frames: string | undefined
  readonly found: readonly Damage[]
  readonly repair: FileRepair | undefined
  /** Damage that is there still. */
  readonly left: readonly Damage[]
  /** Of a file that is not sealed, what is no frame at its end: an append that was cut short, or is under way, or rot in what was the last frame. */
  readonly torn: Damage | undefined
}

export interface ScrubOptions {
  /** Of a file that is sealed anew. */
  readonly parity: ParityShape
  /** Read at most; Infinity for as fast as it goes. */
  readonly bytesPerSecond: number
}

interface Reading {
  readonly bytes: number
  readonly protection: Protection
  readonly frames: string | undefined
  readonly damage: readonly Damage[]
  readonly torn: Damage | undefined
}

const WRITABLE_BITS = 0o222
const MS_PER_SECOND = 1000
const FRAMES_A_TURN = 1024
const nobodyWakes = new Int32Array(new SharedArrayBuffer(4))

/** Blocks its thread, but for turns of the loop; repairs from parity where it `repairs`. @throws io, format-unknown */
export async function scrubFile(
  path: string,
  identity: FrameFileIdentity,
  dataKey: KeyObject,
  options: ScrubOptions,
  repairs: boolean,
): Promise<ScrubbedFile> {
  const { bytes, protection, frames, damage, torn } = await readWhole(path, identity, dataKey, options.bytesPerSecond)
  if (damage.length === 0 || !repairs) return { path, bytes, protection, frames, found: damage, repair: undefined, left: damage, torn }
  const makeParity: MakeParity = (of, length) =>
    Promise.resolve(Array.from(stripesOf(readFileSync(of).subarray(0, length), options.parity), encodeStripe))
  const repair = await repairFile(path, identity, dataKey, makeParity)
  if (repair === undefined) return { path, bytes, protection, frames, found: damage, repair, left: damage, torn }
  const again = await readWhole(path, identity, dataKey, Number.POSITIVE_INFINITY)
  return { path, bytes, protection: again.protection, frames: again.frames, found: damage, repair, left: again.damage, torn: again.torn }
}

async function readWhole(path: string, identity: FrameFileIdentity, dataKey: KeyObject, bytesPerSecond: number): Promise<Reading> {
  forgetCached(path)
  const { size, mode } = statSync(path)
  let file: FrameFile
  try {
    file = FrameFile.open(path, identity, dataKey)
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
    return {
      bytes: size,
      protection: 'sealed',
      frames: undefined,
      damage: [{ file: path, offset: 0, reason: error.message }],
      torn: undefined,
    }
  }
  try {
    return await readFrames(file, (mode & WRITABLE_BITS) === 0, bytesPerSecond)
  } finally {
    file.close()
    forgetCached(path)
  }
}

async function readFrames(file: FrameFile, isReadOnly: boolean, bytesPerSecond: number): Promise<Reading> {
  const damage: Damage[] = []
  const startedMs = performance.now()
  let isSealed = isReadOnly
  let hasParity = false
  let bytes = 0
  let torn: Damage | undefined
  let frames = 0
  for (const found of file.scan()) {
    // What native code has handed out is given back between turns only.
    if (++frames % FRAMES_A_TURN === 0) await setImmediate()
    bytes += found.kind === 'damage' ? found.length : frameBytes(found.header)
    if (found.kind === 'frame') {
      isSealed ||= found.type === 'index'
      hasParity ||= found.type === 'parity'
    }
    const reason = whyDamaged(file, found)
    // The end of a file that is appended to, or is being sealed, may be an append that was cut short, or is under way.
    const isUnderWay = found.kind === 'damage' && found.tail && !isSealed
    if (reason !== undefined) {
      const place = { file: file.path, offset: found.offset, reason }
      if (isUnderWay) torn = place
      else damage.push(place)
    }
    const earlyMs = (bytes / bytesPerSecond) * MS_PER_SECOND - (performance.now() - startedMs)
    if (earlyMs > 1) Atomics.wait(nobodyWakes, 0, 0, earlyMs)
  }
  if (isSealed && damage.length === 0 && file.sealedIndex() === undefined)
    damage.push({ file: file.path, offset: file.size, reason: 'the index or the footer of this sealed file is damaged' })
  const sealedAs = hasParity ? 'parity' : 'sealed'
  return { bytes, protection: isSealed ? sealedAs : 'open', frames: framesOf(file), damage, torn }
}

/** Which frames a sealed file has, and where, by its index. What ends the file may differ all the same, after a repair. */
export function framesOf(file: FrameFile): string | undefined {
  const index = file.sealedIndex()
  if (index === undefined) return undefined
  return digestHex(digestOf(Buffer.from(Array.from(index, ({ type, offset, digest }) => `${type} ${offset} ${digest}`).join(), 'latin1')))
}

function whyDamaged(file: FrameFile, found: ScannedFrame): string | undefined {
  if (found.kind === 'damage') return found.reason
  if (isBare(found.type)) return undefined
  try {
    file.read(found.offset, found.storedLength, found.digest)
    return undefined
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
    return reasonOf(error)
  }
}

/** What the page cache holds was right once; what is on the disk now is the question. */
function forgetCached(path: string): void {
  const fd = openSync(path, 'r')
  try {
    libc?.forgetCached(fd)
  } finally {
    closeSync(fd)
  }
}
