/**
 * The system calls by which the agent goes through a tree by descriptors instead of by path strings, through koffi.
 *
 * Everything is synchronous, takes names as bytes, and throws an Error with `code` set to the errno name, as node:fs does.
 * Every thread that imports this module has its own buffers, so calls of different threads do not disturb each other.
 * Invariant: a name is one component below a descriptor that is held, and no call follows a symlink unless it is told to.
 * It prevents a directory that is swapped for a link from leading the agent out of its volume, and what lies deeper than
 * PATH_MAX from being out of reach. On anything but Linux, `systemCalls` is undefined.
 */
import { constants as fileConstants } from 'node:fs'
import { constants } from 'node:os'
import koffi, { type LibraryHandle } from 'koffi'
import type { ByteString } from '../shared/bytes.ts'
import { PATH_BYTES_MAX } from '../shared/limits.ts'

/** What statx(2) says. */
export interface Stat {
  /** st_mode as it is: type and permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly nlink: number
  readonly ino: bigint
  readonly size: bigint
  /** Space that it takes, in units of 512 bytes. */
  readonly blocks: bigint
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
  /** Undefined where the filesystem keeps none. */
  readonly btimeNs: bigint | undefined
  readonly dev: bigint
  readonly rdev: bigint
  /** The mount that it was reached through; 0 before Linux 5.8. */
  readonly mountId: bigint
}

/** Where the fields of struct statx are. */
export const STATX = {
  nlink: 16,
  uid: 20,
  gid: 24,
  mode: 28,
  ino: 32,
  size: 40,
  blocks: 48,
  btime: 80,
  ctime: 96,
  mtime: 112,
  rdev: 128,
  dev: 136,
  mountId: 144,
}
/** Where the fields of a record of XFS_IOC_BULKSTAT are (struct xfs_bulkstat), and how long one is. */
export const BULKSTAT = {
  bytes: 192,
  ino: 0,
  size: 8,
  mtime: 40,
  ctime: 48,
  uid: 68,
  gid: 72,
  mtimeNs: 84,
  ctimeNs: 88,
  nlink: 112,
  mode: 132,
}

const O_CLOEXEC = 0o2000000
const O_PATH = 0o10000000
/** To list a directory, never through a symlink. */
export const OPEN_DIRECTORY = fileConstants.O_RDONLY | fileConstants.O_DIRECTORY | fileConstants.O_NOFOLLOW | O_CLOEXEC
/** To name a place without touching it, never through a symlink. */
export const OPEN_PATH = O_PATH | fileConstants.O_NOFOLLOW | O_CLOEXEC
/** For `openat2`: neither out of the directory, nor through a symlink. */
export const RESOLVE_WITHIN = 0x08 | 0x04
/** For `openat2`: nor into another mount. */
export const RESOLVE_SAME_MOUNT = 0x01
/** What statfs(2) says of filesystems. */
export const XFS_MAGIC = 0x5846_5342
export const EXT4_MAGIC = 0xef53
export const BTRFS_MAGIC = 0x9123_683e

const AT_FDCWD = -100
const MADV_PAGEOUT = 21
const AT_SYMLINK_NOFOLLOW = 0x100
const AT_NO_AUTOMOUNT = 0x800
const AT_EMPTY_PATH = 0x1000
/** Of a name itself, whatever it is. */
const LOOK = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT
const DOT = 0x2e
/** STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID */
const STATX_WANTED = 0x1fff
const STATX_BTIME = 0x800
const STATX_MNT_ID = 0x1000
const STATX_BYTES = 256
/** The same number on every architecture. */
const SYS_OPENAT2 = 437
const SEEK_DATA = 3
const SEEK_HOLE = 4
const FICLONE = 0x4004_9409
const XFS_IOC_BULKSTAT = 0x8040_587f
const BULKSTAT_HEADER_BYTES = 64
const DIRECTORY_BYTES = 64 * 1024

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]))

export interface BulkstatAnswer {
  /** Records of 32-bit words, BULKSTAT.bytes each, in the order of inode numbers; valid until the next call. 0: there are no more. */
  readonly count: number
  readonly records: Uint32Array
}

export interface SystemCalls {
  /** Opens one component below a directory. */
  openat(dirfd: number, name: ByteString, flags: number): number
  /** Opens a path below a directory under the restrictions of `resolve`. */
  openat2(dirfd: number, path: ByteString, flags: number, resolve: number): number
  close(fd: number): void
  /** Of the name itself, never of what a link points to; '' is the descriptor. Undefined where there is nothing. */
  statAt(dirfd: number, name: ByteString): Stat | undefined
  /** The same as the bytes of struct statx (STATX), valid until the next call of this thread. */
  statBytesAt(dirfd: number, name: ByteString): Buffer | undefined
  /** Of the last `statBytesAt`, or within `statNames`, as 32-bit words. */
  readonly statWords: Uint32Array
  /** The name that the last `statBytesAt` was asked for, from the first byte on. */
  readonly nameBytes: Buffer
  /**
   * The same as `statBytesAt` for each name in a directory that was opened to be listed, without making strings of them: `take` is told where in
   * `listing` the name is, and how long, and may not list meanwhile. Of a name that cannot be looked at it is told too, with `isThere` false.
   */
  statNames(fd: number, take: (at: number, length: number, isThere: boolean) => void): void
  /** The names of the directory that `statNames` goes through. */
  readonly listing: Buffer
  /** The names in a directory that was opened to be listed, in no order, without '.' and '..'. */
  namesIn(fd: number): ByteString[]
  /** Where the next data, or the next hole, begins; undefined where there is none behind the offset. */
  seekData(fd: number, offset: number): number | undefined
  seekHole(fd: number, offset: number): number | undefined
  /** `destination` gets the content of `source` without copying it (reflink). */
  ficlone(destination: number, source: number): void
  /** Type of the filesystem (statfs(2)). */
  filesystemOf(fd: number): { readonly type: number; readonly inodesUsed: number }
  /** Gives memory that is free within the process back to the system, where the C library can (malloc_trim(3)). */
  trimMemory(): void
  /**
   * Takes clean pages of a mapped file out of memory; they are read again when they are needed (madvise(2), MADV_PAGEOUT). Harmless
   * where something else is mapped there by now. Left undone where the kernel cannot.
   */
  pageOut(address: number, length: number): void
  /** Up to `max` inodes of the XFS that holds `fd`, from the number `first` on. */
  bulkstat(fd: number, first: bigint, max: number): BulkstatAnswer
}

function fail(call: string, path?: ByteString): never {
  const errno = koffi.errno()
  const name = ERRNO_NAMES.get(errno) ?? `errno ${errno}`
  const where = path === undefined ? '' : ` '${path}'`
  throw Object.assign(new Error(`${name}: ${call}${where}`), { code: name, errno: -errno, syscall: call })
}

function timeAt(bytes: Buffer, at: number): bigint {
  return bytes.readBigInt64LE(at) * 1_000_000_000n + BigInt(bytes.readUInt32LE(at + 8))
}

/** As makedev(3) packs the two numbers of a device. */
function deviceAt(bytes: Buffer, at: number): bigint {
  const major = BigInt(bytes.readUInt32LE(at))
  const minor = BigInt(bytes.readUInt32LE(at + 4))
  return ((major & 0xffff_f000n) << 32n) | ((major & 0xfffn) << 8n) | ((minor & 0xffff_ff00n) << 12n) | (minor & 0xffn)
}

function statOf(bytes: Buffer): Stat {
  const had = bytes.readUInt32LE(0)
  return {
    mode: bytes.readUInt16LE(STATX.mode),
    uid: bytes.readUInt32LE(STATX.uid),
    gid: bytes.readUInt32LE(STATX.gid),
    nlink: bytes.readUInt32LE(STATX.nlink),
    ino: bytes.readBigUInt64LE(STATX.ino),
    size: bytes.readBigUInt64LE(STATX.size),
    blocks: bytes.readBigUInt64LE(STATX.blocks),
    mtimeNs: timeAt(bytes, STATX.mtime),
    ctimeNs: timeAt(bytes, STATX.ctime),
    btimeNs: (had & STATX_BTIME) === 0 ? undefined : timeAt(bytes, STATX.btime),
    dev: deviceAt(bytes, STATX.dev),
    rdev: deviceAt(bytes, STATX.rdev),
    mountId: (had & STATX_MNT_ID) === 0 ? 0n : bytes.readBigUInt64LE(STATX.mountId),
  }
}

/** Where the bytes are as long as the buffer lives: it must not be one of a few bytes, which the runtime moves. */
function addressOf(bytes: Buffer): number {
  return Number(koffi.address(bytes))
}

/** The first of these that the C library has: glibc and musl do not name everything alike. */
function firstOf(library: LibraryHandle, ...definitions: string[]): ReturnType<LibraryHandle['func']> | undefined {
  for (const definition of definitions) {
    try {
      return library.func(definition)
    } catch {
      // The next one, then.
    }
  }
  return undefined
}

function open(): SystemCalls | undefined {
  if (process.platform !== 'linux') return undefined
  const library = koffi.load(null)
  const openat = library.func('int openat(int dirfd, const void *name, int flags)')
  const syscall = library.func('long syscall(long number, long first, const void *second, const void *third, long fourth)')
  const close = library.func('int close(int fd)')
  // By addresses, which are looked up once: of a buffer koffi would ask the runtime at every call, millions of times in a scan.
  const statx = library.func('int statx(int dirfd, uintptr_t name, int flags, uint32_t mask, uintptr_t buffer)')
  const lseek = library.func('int64_t lseek(int fd, int64_t offset, int whence)')
  const ioctl = library.func('int ioctl(int fd, unsigned long request, void *argument)')
  const clone = library.func('int ioctl(int fd, unsigned long request, long argument)')
  const fstatfs = library.func('int fstatfs(int fd, void *buffer)')
  const trim = firstOf(library, 'int malloc_trim(size_t padding)')
  const advise = library.func('int madvise(uintptr_t address, size_t length, int advice)')
  const getdents = firstOf(
    library,
    'intptr_t getdents64(int fd, void *buffer, size_t length)',
    'intptr_t getdents(int fd, void *buffer, size_t length)',
  )
  if (getdents === undefined) return undefined

  const nameBytes = Buffer.alloc(PATH_BYTES_MAX + 1)
  const statBytes = Buffer.from(new ArrayBuffer(STATX_BYTES))
  const how = Buffer.alloc(24)
  const filesystem = Buffer.alloc(256)
  const directory = Buffer.alloc(DIRECTORY_BYTES)
  const [nameAddress, statAddress, directoryAddress] = [addressOf(nameBytes), addressOf(statBytes), addressOf(directory)]
  const header = Buffer.alloc(BULKSTAT_HEADER_BYTES)
  let records = Buffer.alloc(BULKSTAT_HEADER_BYTES)

  /** The bytes of a name with NUL behind them. */
  function cString(name: ByteString): Buffer {
    if (name.length > PATH_BYTES_MAX) throw Object.assign(new Error('ENAMETOOLONG: a path'), { code: 'ENAMETOOLONG' })
    nameBytes[nameBytes.write(name, 0, 'latin1')] = 0
    return nameBytes
  }

  function statBytesAt(dirfd: number, name: ByteString): Buffer | undefined {
    cString(name)
    if (statx(dirfd, nameAddress, name === '' ? LOOK | AT_EMPTY_PATH : LOOK, STATX_WANTED, statAddress) === 0) return statBytes
    if (koffi.errno() === constants.errno.ENOENT) return undefined
    return fail('statx', name)
  }

  /** Where each name of a directory is in `directory`, and how long it is. */
  function eachName(fd: number, take: (at: number, length: number) => void): void {
    for (;;) {
      const length = Number(getdents?.(fd, directory, directory.length))
      if (length < 0) fail('getdents64')
      if (length === 0) return
      // struct linux_dirent64: d_ino, d_off, u16 d_reclen, u8 d_type, and the name with NUL behind it.
      for (let at = 0; at < length; at += directory.readUInt16LE(at + 16)) {
        const name = at + 19
        let end = name
        while (directory[end] !== 0) end += 1
        const isDots = directory[name] === DOT && (end - name === 1 || (end - name === 2 && directory[name + 1] === DOT))
        if (!isDots) take(name, end - name)
      }
    }
  }

  function seek(fd: number, offset: number, whence: number): number | undefined {
    const found = Number(lseek(fd, offset, whence))
    if (found >= 0) return found
    return koffi.errno() === constants.errno.ENXIO ? undefined : fail('lseek')
  }

  return {
    openat(dirfd, name, flags) {
      const fd = openat(dirfd, cString(name), flags) as number
      return fd < 0 ? fail('openat', name) : fd
    },
    openat2(dirfd, path, flags, resolve) {
      how.fill(0)
      how.writeUInt32LE(flags, 0)
      how.writeUInt32LE(resolve, 16)
      const fd = Number(syscall(SYS_OPENAT2, dirfd, cString(path === '' ? '.' : path), how, how.length))
      return fd < 0 ? fail('openat2', path) : fd
    },
    close(fd) {
      close(fd)
    },
    statAt(dirfd, name) {
      const bytes = statBytesAt(dirfd, name)
      return bytes === undefined ? undefined : statOf(bytes)
    },
    statBytesAt,
    statWords: new Uint32Array(statBytes.buffer, statBytes.byteOffset, STATX_BYTES / 4),
    nameBytes,
    listing: directory,
    statNames(fd, take) {
      eachName(fd, (at, length) => take(at, length, statx(fd, directoryAddress + at, LOOK, STATX_WANTED, statAddress) === 0))
    },
    namesIn(fd) {
      const names: ByteString[] = []
      eachName(fd, (at, length) => names.push(directory.toString('latin1', at, at + length)))
      return names
    },
    seekData: (fd, offset) => seek(fd, offset, SEEK_DATA),
    seekHole: (fd, offset) => seek(fd, offset, SEEK_HOLE),
    ficlone(destination, source) {
      if (clone(destination, FICLONE, source) !== 0) fail('ioctl FICLONE')
    },
    filesystemOf(fd) {
      if (fstatfs(fd, filesystem) !== 0) fail('fstatfs')
      // struct statfs: f_type, f_bsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, 8 bytes each.
      const inodesUsed = Number(filesystem.readBigUInt64LE(40) - filesystem.readBigUInt64LE(48))
      return { type: filesystem.readUInt32LE(0), inodesUsed }
    },
    trimMemory() {
      trim?.(0)
    },
    pageOut(address, length) {
      advise(address, length, MADV_PAGEOUT)
    },
    bulkstat(fd, first, max) {
      const wanted = BULKSTAT_HEADER_BYTES + max * BULKSTAT.bytes
      if (records.length < wanted) records = Buffer.alloc(wanted)
      header.fill(0)
      header.writeBigUInt64LE(first, 0)
      header.writeUInt32LE(max, 12)
      header.copy(records)
      if (ioctl(fd, XFS_IOC_BULKSTAT, records) !== 0) fail('ioctl XFS_IOC_BULKSTAT')
      return {
        count: records.readUInt32LE(16),
        records: new Uint32Array(records.buffer, records.byteOffset + BULKSTAT_HEADER_BYTES, (records.length - BULKSTAT_HEADER_BYTES) / 4),
      }
    },
  }
}

export const systemCalls = open()
/** For `openat` of an absolute path. */
export const WORKING_DIRECTORY = AT_FDCWD
