/**
 * The header that a file of frames begins with (docs/format.md, "File of frames").
 *
 * Invariant: a file is only read as what its header says that it is, at the place where it stands. It prevents a file that was
 * renamed, or copied here from another repository, from being taken for a part of this one.
 */
import { crc32 } from 'node:zlib'
import { ByteReader, ByteWriter } from '../../shared/bytes.ts'
import { PacsimileError } from '../../shared/errors.ts'

const FILE_KINDS = { pack: 'P', segment: 'S' } as const
export type FrameFileKind = keyof typeof FILE_KINDS

const MAGIC = Buffer.from('PACSIMIL', 'latin1')
const FORMAT_MAJOR = 1
const FORMAT_MINOR = 0
export const FILE_HEADER_BYTES = 96
export const SALT_BYTES = 32

export interface FrameFileIdentity {
  readonly kind: FrameFileKind
  /** 16 bytes, as hex. */
  readonly repository: string
  readonly number: number
}

export function encodeHeader(identity: FrameFileIdentity, salt: Buffer): Buffer {
  const to = new ByteWriter(FILE_HEADER_BYTES)
  to.raw(MAGIC).rawString(FILE_KINDS[identity.kind]).u8(FORMAT_MAJOR).u8(FORMAT_MINOR).u8(0).u32(0)
  to.raw(Buffer.from(identity.repository, 'hex')).u64(identity.number).u64(Date.now()).raw(salt)
  to.raw(Buffer.alloc(FILE_HEADER_BYTES - 4 - to.length))
  to.u32(crc32(to.view()))
  return to.take()
}

/** Whether these are the bytes of some header. */
export function isHeaderWhole(bytes: Buffer): boolean {
  if (bytes.length < FILE_HEADER_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return false
  return crc32(bytes.subarray(0, FILE_HEADER_BYTES - 4)) === bytes.readUInt32LE(FILE_HEADER_BYTES - 4)
}

/** The salt of a file's labels. @throws format-invalid, format-unknown, damage */
export function checkHeader(bytes: Buffer, identity: FrameFileIdentity, path: string): Buffer {
  const from = new ByteReader(bytes, path)
  if (!from.raw(8).equals(MAGIC)) throw new PacsimileError('damage', `${path} does not begin as a file of this repository format`)
  if (crc32(bytes.subarray(0, FILE_HEADER_BYTES - 4)) !== bytes.readUInt32LE(FILE_HEADER_BYTES - 4))
    throw new PacsimileError('damage', `The header of ${path} fails its CRC`)
  const kind = from.rawString(1)
  const major = from.u8()
  if (major !== FORMAT_MAJOR)
    throw new PacsimileError('format-unknown', `${path} is of format ${major}; this release reads format ${FORMAT_MAJOR}`)
  from.raw(6)
  const repository = from.raw(16).toString('hex')
  const number = from.u64()
  if (kind !== FILE_KINDS[identity.kind] || repository !== identity.repository || number !== identity.number)
    throw new PacsimileError(
      'damage',
      `${path} is not ${identity.kind} ${identity.number} of repository ${identity.repository}: it was renamed or copied here`,
    )
  from.u64()
  return Buffer.from(from.raw(SALT_BYTES))
}
