/**
 * The catalog's values, in one place (docs/format.md, "Catalog"): each encoding beside its inverse.
 */
import { ByteReader, ByteWriter } from '../shared/bytes.ts'
import { hybridTime } from '../shared/clock.ts'
import { DIGEST_BYTES, digest } from '../shared/digest.ts'
import type { Label } from '../shared/path.ts'
import { type ChainEnd, WATCH_MODES } from '../shared/record.ts'
import { decodeVersion, encodeVersion, type Version } from '../shared/version.ts'
import type { ChunkPlace, Coverage, Damage, Reflected, Span, VolumeFacts } from './catalog.ts'
import type { LedgerEnd } from './repository/ledger-entry.ts'

/** A path's end. */
const GONE = Buffer.from([0])

export function reflectedValue(reflected: Reflected): Buffer {
  return new ByteWriter(32)
    .u64(reflected.packs.file)
    .u64(reflected.packs.offset)
    .u64(reflected.segments.file)
    .u64(reflected.segments.offset)
    .take()
}

export function chunkValue(place: ChunkPlace): Buffer {
  return new ByteWriter(24).varint(place.file).varint(place.offset).varint(place.storedLength).varint(place.plainLength).take()
}

export function readChunkPlace(value: Buffer): ChunkPlace {
  const from = new ByteReader(value, 'Catalog chunk')
  return { file: from.varint(), offset: from.varint(), storedLength: from.varint(), plainLength: from.varint() }
}

export function chainEndValue(end: ChainEnd): Buffer {
  return new ByteWriter(56).u64(end.epoch).u64(end.seq).rawString(end.hash).big64(end.time).take()
}

/** `undefined`: the path ended there. */
export function versionValue(version: Version | undefined, to: ByteWriter): Buffer {
  if (version === undefined) return GONE
  to.reset()
  to.u8(1)
  encodeVersion(version, to)
  return to.take()
}

export function readVersion(value: Buffer): Version | undefined {
  const version = storedVersion(value)
  return version === undefined ? undefined : decodeVersion(new ByteReader(version, 'Catalog version'))
}

/** The version as it was encoded. */
export function storedVersion(value: Buffer): Buffer | undefined {
  return value[0] === 0 ? undefined : value.subarray(1)
}

export function ledgerEndValue({ number, hash, ageMs }: LedgerEnd): Buffer {
  return new ByteWriter(48).u64(number).rawString(hash).u64(ageMs).take()
}

export function readLedgerEnd(value: Buffer): LedgerEnd {
  const from = new ByteReader(value, 'Catalog ledger')
  return { number: from.u64(), hash: digest(from.rawString(DIGEST_BYTES)), ageMs: from.u64() }
}

export function volumeValue(facts: VolumeFacts): Buffer {
  const to = new ByteWriter().u8(WATCH_MODES.indexOf(facts.mode) + 1).big64(facts.since)
  return to
    .big64(facts.completeAt ?? 0n)
    .string(facts.root)
    .take()
}

export function readVolume(name: Label, value: Buffer): VolumeFacts {
  const from = new ByteReader(value, 'Catalog volume')
  const mode = WATCH_MODES[from.u8() - 1] ?? from.fail('unknown mode')
  const since = hybridTime(from.big64())
  const completeAt = from.big64()
  return { name, root: from.string(4096), mode, since, completeAt: completeAt === 0n ? undefined : hybridTime(completeAt) }
}

export function damageValue(damage: Damage): Buffer {
  const text = (value: string): Buffer => Buffer.from(value, 'utf8').subarray(0, 4096)
  return new ByteWriter().bytes(text(damage.file)).u64(damage.offset).bytes(text(damage.reason)).take()
}

export function gapValue(gap: Span & { readonly cause: string }): Buffer {
  return new ByteWriter().big64(gap.from).big64(gap.until).bytes(Buffer.from(gap.cause, 'utf8')).take()
}

export function coverageValue(coverage: Coverage): Buffer {
  return new ByteWriter(17)
    .big64(coverage.from)
    .big64(coverage.until)
    .u8(WATCH_MODES.indexOf(coverage.mode) + 1)
    .take()
}

export function readCoverage(value: Buffer): Coverage {
  const from = new ByteReader(value, 'Catalog coverage')
  return { from: hybridTime(from.big64()), until: hybridTime(from.big64()), mode: WATCH_MODES[from.u8() - 1] ?? from.fail('unknown mode') }
}
