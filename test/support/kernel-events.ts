/** fanotify events as the kernel lays them out, from their parts. */
import type { ByteString } from '../../shared/bytes.ts'

export interface MadeEvent {
  readonly mask: number
  readonly fd?: number
  readonly pid?: number
  /** Info records: type, handle bytes, and a name where the type has one. */
  readonly info?: readonly { readonly type: number; readonly handle: ByteString; readonly name?: ByteString }[]
}

const METADATA_BYTES = 24

/** Filesystem id, handle length, handle type, handle: as a key names it. */
export function handleOf(text: ByteString): ByteString {
  const head = Buffer.alloc(16)
  head.write('FSIDFSID', 0, 'latin1')
  head.writeUInt32LE(text.length, 8)
  head.writeInt32LE(1, 12)
  return head.toString('latin1') + text
}

export function eventBytes({ mask, fd = -1, pid = 4711, info = [] }: MadeEvent): Buffer {
  const records = info.map(({ type, handle, name }) => {
    const body = Buffer.from(handle + (name === undefined ? '' : `${name}\0`), 'latin1')
    const length = Math.ceil((4 + body.length) / 4) * 4
    const record = Buffer.alloc(length)
    record[0] = type
    record.writeUInt16LE(length, 2)
    body.copy(record, 4)
    return record
  })
  const bytes = Buffer.concat([Buffer.alloc(METADATA_BYTES), ...records])
  bytes.writeUInt32LE(bytes.length, 0)
  bytes[4] = 3
  bytes.writeUInt16LE(METADATA_BYTES, 6)
  bytes.writeBigUInt64LE(BigInt(mask), 8)
  bytes.writeInt32LE(fd, 16)
  bytes.writeInt32LE(pid, 20)
  return bytes
}
