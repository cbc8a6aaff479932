/**
 * Which inode a file's handle is of, without opening it.
 *
 * The layouts are those of the kernel's include/linux/exportfs.h: ext4 and XFS begin with the inode's number, btrfs with its object id. Others may use
 * the same type for something else. Invariant: a number is taken from a handle only where the filesystem has several times said the same
 * of another one of that kind. It prevents a filesystem that is not known to us from having changes told of the wrong file.
 */
import type { ByteString } from '../../shared/bytes.ts'
import type { HandleKey } from './fanotify-calls.ts'

const FSID_BYTES = 8
/** Behind the filesystem's id: handle bytes u32, handle type i32. */
const KIND_BYTES = 8
const INODE_AT = FSID_BYTES + KIND_BYTES
/** Bytes of the inode's number by the type of the handle. */
const NUMBER_BYTES: ReadonlyMap<number, number> = new Map([
  // FILEID_INO32_GEN
  [0x01, 4],
  // FILEID_INO64_GEN
  [0x81, 8],
  // FILEID_BTRFS_WITHOUT_PARENT
  [0x4d, 8],
])
/** Equal by chance once in 2^32 each, where it is something else. */
const AGREED_MIN = 4

export class HandleInodes {
  /** By filesystem and kind of handle: different inodes of which the handle said the same as the filesystem; never again, where it did not. */
  readonly #agreed = new Map<ByteString, Set<bigint> | 'never'>()

  /** Undefined where the filesystem has to be asked. */
  told(handle: HandleKey): bigint | undefined {
    const agreed = this.#agreed.get(kindOf(handle))
    return agreed !== undefined && agreed !== 'never' && agreed.size >= AGREED_MIN ? numberIn(handle) : undefined
  }

  /** What the filesystem said. */
  learn(handle: HandleKey, inode: bigint): void {
    const kind = kindOf(handle)
    const agreed = this.#agreed.get(kind) ?? new Set()
    if (agreed === 'never') return
    this.#agreed.set(kind, numberIn(handle) === inode ? agreed.add(inode) : 'never')
  }
}

function kindOf(handle: HandleKey): ByteString {
  return handle.slice(0, INODE_AT)
}

function numberIn(handle: HandleKey): bigint | undefined {
  const bytes = NUMBER_BYTES.get(byteAt(handle, FSID_BYTES + 4))
  if (bytes === undefined || handle.length < INODE_AT + bytes) return undefined
  let number = 0n
  for (let at = INODE_AT + bytes - 1; at >= INODE_AT; at--) number = (number << 8n) | BigInt(byteAt(handle, at))
  return number
}

function byteAt(text: ByteString, at: number): number {
  return text.charCodeAt(at)
}
