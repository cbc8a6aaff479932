/**
 * The bytes that a read of a fanotify group gives, as events (fanotify(7), "Reading fanotify events"). Pure.
 *
 *     event   length u32, version u8, reserved u8, metadata length u16, mask u64, fd i32, pid i32, then info records
 *     info    type u8, pad u8, length u16; of a handle: fsid 8, handle bytes u32, handle type i32, handle, name NUL
 *
 * Invariant: every length is checked before it is believed, and a layout that is not known is an error. It prevents a newer
 * kernel from being misread as one in which nothing happened.
 */
import { asBuffer, type ByteString } from '../../shared/bytes.ts'
import type { HandleKey } from './fanotify-calls.ts'

/** A name in a directory. */
export interface DirectoryEntry {
  readonly directory: HandleKey
  readonly name: ByteString
}

export interface FanotifyEvent {
  /** EVENT bits; several that came before the event was read are merged into one. */
  readonly mask: number
  /** An open descriptor, which the reader must close; -1 where none was asked for. */
  readonly fd: number
  /** 0 where the process is not of our PID namespace. */
  readonly pid: number
  /** Where it happened; of a rename, the new name. */
  readonly entry: DirectoryEntry | undefined
  /** Of a rename: the old name. */
  readonly from: DirectoryEntry | undefined
  /** The file itself. */
  readonly target: HandleKey | undefined
  /** Of a filesystem error: the errno of the first one. */
  readonly error: number
}

const VERSION = 3
const METADATA_BYTES = 24
const INFO = { fid: 1, dirFidName: 2, dirFid: 3, error: 5, oldName: 10, newName: 12 } as const
const INFO_HEADER_BYTES = 4
const FSID_BYTES = 8
const HANDLE_HEADER_BYTES = 8

/** @throws RangeError for bytes that no kernel known to us gives */
export function* fanotifyEvents(read: Uint8Array): Generator<FanotifyEvent, void> {
  const bytes = asBuffer(read)
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length - at < METADATA_BYTES) throw new RangeError('a fanotify event is cut short')
    const length = bytes.readUInt32LE(at)
    if (bytes[at + 4] !== VERSION) throw new RangeError(`fanotify events of version ${bytes[at + 4]} are not known`)
    if (length < METADATA_BYTES || at + length > bytes.length) throw new RangeError(`a fanotify event claims ${length} bytes`)
    yield event(bytes, at, at + length)
    at += length
  }
}

function event(bytes: Buffer, start: number, end: number): FanotifyEvent {
  let entry: DirectoryEntry | undefined
  let from: DirectoryEntry | undefined
  let target: HandleKey | undefined
  let error = 0
  for (let at = start + bytes.readUInt16LE(start + 6); at + INFO_HEADER_BYTES <= end; ) {
    const type = bytes[at]
    const length = bytes.readUInt16LE(at + 2)
    if (length < INFO_HEADER_BYTES || at + length > end) throw new RangeError(`a fanotify info record claims ${length} bytes`)
    switch (type) {
      case INFO.fid:
        target = handleAt(bytes, at, at + length).key
        break
      case INFO.dirFidName:
      case INFO.newName:
        entry = entryAt(bytes, at, at + length)
        break
      case INFO.oldName:
        from = entryAt(bytes, at, at + length)
        break
      case INFO.dirFid:
        entry = { directory: handleAt(bytes, at, at + length).key, name: '.' }
        break
      case INFO.error:
        error = bytes.readInt32LE(at + INFO_HEADER_BYTES)
        break
      default:
        // A kind of information that was not asked for.
        break
    }
    at += length
  }
  return {
    mask: bytes.readUInt32LE(start + 8),
    fd: bytes.readInt32LE(start + 16),
    pid: bytes.readInt32LE(start + 20),
    entry,
    from,
    target,
    error,
  }
}

function handleAt(bytes: Buffer, start: number, end: number): { readonly key: HandleKey; readonly end: number } {
  const from = start + INFO_HEADER_BYTES
  const handleEnd = from + FSID_BYTES + HANDLE_HEADER_BYTES + bytes.readUInt32LE(from + FSID_BYTES)
  if (handleEnd > end) throw new RangeError('a fanotify handle is longer than its record')
  return { key: bytes.toString('latin1', from, handleEnd), end: handleEnd }
}

function entryAt(bytes: Buffer, start: number, end: number): DirectoryEntry {
  const { key, end: nameStart } = handleAt(bytes, start, end)
  const nul = bytes.indexOf(0, nameStart)
  return { directory: key, name: bytes.toString('latin1', nameStart, nul < 0 || nul > end ? end : nul) }
}
