/**
 * The few system calls that Node does not offer, through koffi: leases, syncfs, xattrs, nanosecond times, sd_notify.
 *
 * Everything is synchronous, takes names as bytes, and throws an Error with `code` set to the errno name, as node:fs does.
 * Invariant: on a platform without glibc or musl Linux, `libc` is undefined and callers say what they cannot do.
 * It prevents names from passing through UTF-8, and times from losing nanoseconds in a double.
 */
import { constants } from 'node:os'
import koffi from 'koffi'
import type { ByteString } from './bytes.ts'

const AT_FDCWD = -100
const AT_SYMLINK_NOFOLLOW = 0x100
const AT_SYMLINK_FOLLOW = 0x400
const AT_EMPTY_PATH = 0x1000
const F_SETLEASE = 1024
const F_GETLEASE = 1025
const F_SETSIG = 10
const F_RDLCK = 0
const F_UNLCK = 2
const SIGURG = 23
const AF_UNIX = 1
const LOCK_EX = 2
const LOCK_NB = 4
const POSIX_FADV_DONTNEED = 4
const O_CLOEXEC = 0o2000000
const UTIME_OMIT = 0x3fff_fffen
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000
const RENAME_NOREPLACE = 1
const RENAME_EXCHANGE = 2
/** Largest xattr value (linux/limits.h XATTR_SIZE_MAX) and name list (XATTR_LIST_MAX). */
const XATTR_SIZE_MAX = 65_536

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]))

export interface Libc {
  /**
   * Takes a read lease: `granted` when nobody has the file open for writing or mapped writable (fcntl(2), "Leases"), `busy`
   * when somebody has, `unsupported` where the filesystem or our rights do not allow to ask.
   */
  takeReadLease(fd: number): 'granted' | 'busy' | 'unsupported'
  /** Whether the lease is still held: false as soon as a writer waits. */
  holdsReadLease(fd: number): boolean
  releaseLease(fd: number): void
  /** Everything of the filesystem that holds `fd` is durable (syncfs(2); reports write-back errors since Linux 5.8). */
  syncFilesystem(fd: number): void
  /** The same while the thread does other things: behind what others write it may take minutes. Rejects with EIO, whichever error it was. */
  filesystemSynced(fd: number): Promise<void>
  /**
   * An exclusive lock of an open file, without waiting for it (flock(2)); it ends with the last descriptor of that opening, so with the
   * process. False where another one has it, or the filesystem knows none. On a thread of its own: a server may have to be asked.
   */
  lockFile(fd: number): Promise<boolean>
  /** What is read of the file next comes from the disk, so far as its pages are clean (posix_fadvise(2)). */
  forgetCached(fd: number): void
  /** Names and values, sorted by name; of the link itself, never of its target. */
  xattrs(path: ByteString): { name: ByteString; value: ByteString }[]
  /** The same of an open file, whatever names it has. */
  xattrsOf(fd: number): { name: ByteString; value: ByteString }[]
  /** Of an open file, or of what has a name, the link itself. */
  setXattr(of: number | ByteString, name: ByteString, value: ByteString): void
  removeXattr(of: number | ByteString, name: ByteString): void
  /** Sets the modification time to the nanosecond, of the link itself; the access time stays. */
  setModified(path: ByteString, mtimeNs: bigint): void
  /** openat(2) of one name in a directory. What is opened is closed in programs that are started. */
  openAt(directory: number, name: ByteString, flags: number, mode: number): number
  /** renameat(2) of a name to another one, which may be in another directory. */
  renameAt(fromDirectory: number, from: ByteString, toDirectory: number, to: ByteString): void
  /** The same of what is open. */
  setModifiedOf(fd: number, mtimeNs: bigint): void
  /** Gives an open file, which may have no name (O_TMPFILE, open(2)), one that is new: EEXIST where it is not. */
  linkOpen(fd: number, directory: number, name: ByteString): void
  makeNode(path: ByteString, mode: number, device: bigint): void
  /** Both names are there before and after, at every instant, of what the other was. False, and nothing done, where the filesystem cannot. */
  exchange(a: ByteString, b: ByteString): boolean
  /** rename(2) that fails with EEXIST where `to` is there. False, and nothing done, where the filesystem cannot. */
  renameToNew(from: ByteString, to: ByteString): boolean
  /** Ends the process with all of its threads, whatever they wait for (_exit(2)). */
  exitAtOnce(status: number): void
  /** One datagram to the socket that systemd names in NOTIFY_SOCKET (sd_notify(3)). */
  notify(socket: string, message: string): void
}

function fail(call: string, path?: ByteString): never {
  const errno = koffi.errno()
  const name = ERRNO_NAMES.get(errno) ?? `errno ${errno}`
  const where = path === undefined ? '' : ` '${path}'`
  throw Object.assign(new Error(`${name}: ${call}${where}`), { code: name, errno: -errno, syscall: call })
}

function cString(bytes: ByteString): Buffer {
  return Buffer.from(`${bytes}\0`, 'latin1')
}

const NO_PATH = cString('')

type Renameat2 = (fromDirectory: number, from: Buffer, toDirectory: number, to: Buffer, flags: number) => number

/** What says that a filesystem or a kernel does not know the flag. */
const RENAME_UNKNOWN = new Set(['EINVAL', 'ENOSYS'])

/** Not every C library has it. */
function renameFunction(library: ReturnType<typeof koffi.load>): Renameat2 | undefined {
  try {
    return library.func('int renameat2(int fromDirectory, const void *from, int toDirectory, const void *to, unsigned int flags)')
  } catch {
    // Whoever asks is told, and has another way.
    return undefined
  }
}

function open(): Libc | undefined {
  if (process.platform !== 'linux') return undefined
  const library = koffi.load(null)
  const fcntl = library.func('int fcntl(int fd, int command, long argument)')
  const fadvise = library.func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)')
  const syncfs = library.func('int syncfs(int fd)')
  const flock = library.func('int flock(int fd, int operation)')
  const llistxattr = library.func('intptr_t llistxattr(const void *path, void *list, size_t size)')
  const lgetxattr = library.func('intptr_t lgetxattr(const void *path, const void *name, void *value, size_t size)')
  const flistxattr = library.func('intptr_t flistxattr(int fd, void *list, size_t size)')
  const fgetxattr = library.func('intptr_t fgetxattr(int fd, const void *name, void *value, size_t size)')
  const lsetxattr = library.func('int lsetxattr(const void *path, const void *name, const void *value, size_t size, int flags)')
  const lremovexattr = library.func('int lremovexattr(const void *path, const void *name)')
  const fsetxattr = library.func('int fsetxattr(int fd, const void *name, const void *value, size_t size, int flags)')
  const fremovexattr = library.func('int fremovexattr(int fd, const void *name)')
  const utimensat = library.func('int utimensat(int dirfd, const void *path, const void *times, int flags)')
  const futimens = library.func('int futimens(int fd, const void *times)')
  const linkat = library.func('int linkat(int fromDirectory, const void *from, int toDirectory, const void *to, int flags)')
  const openat = library.func('int openat(int directory, const void *name, int flags, unsigned int mode)')
  const renameat = library.func('int renameat(int fromDirectory, const void *from, int toDirectory, const void *to)')
  const mknod = library.func('int mknod(const void *path, uint32_t mode, uint64_t device)')
  const renameat2 = renameFunction(library)
  const socket = library.func('int socket(int domain, int type, int protocol)')
  const sendto = library.func(
    'intptr_t sendto(int fd, const void *bytes, size_t length, int flags, const void *address, uint32_t addressLength)',
  )
  const close = library.func('int close(int fd)')
  const exit = library.func('void _exit(int status)')
  const list = Buffer.alloc(XATTR_SIZE_MAX)
  const value = Buffer.alloc(XATTR_SIZE_MAX)
  const times = Buffer.alloc(32)
  times.writeBigInt64LE(UTIME_OMIT, 8)
  let mayLinkEmpty = true

  /** Of the names in `list`, whose length the system gave; negative for an error. */
  function listed(call: string, length: number, path: ByteString | undefined, valueSize: (name: Buffer) => number) {
    if (length < 0) {
      if (ERRNO_NAMES.get(koffi.errno()) === 'ENOTSUP' || ERRNO_NAMES.get(koffi.errno()) === 'EOPNOTSUPP') return []
      fail(call, path)
    }
    if (length === 0) return []
    const found: { name: ByteString; value: ByteString }[] = []
    for (const name of list.toString('latin1', 0, length - 1).split('\0')) {
      const size = valueSize(cString(name))
      // Removed since it was listed, or not ours to read (trusted.* without the capability).
      if (size < 0) continue
      found.push({ name, value: value.toString('latin1', 0, size) })
    }
    return found.sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  function setTimes(mtimeNs: bigint): void {
    let seconds = mtimeNs / 1_000_000_000n
    let nanoseconds = mtimeNs % 1_000_000_000n
    if (nanoseconds < 0n) {
      seconds -= 1n
      nanoseconds += 1_000_000_000n
    }
    times.writeBigInt64LE(seconds, 16)
    times.writeBigInt64LE(nanoseconds, 24)
  }

  function rename(from: ByteString, to: ByteString, flags: number): boolean {
    if (renameat2 === undefined) return false
    if (renameat2(AT_FDCWD, cString(from), AT_FDCWD, cString(to), flags) === 0) return true
    if (RENAME_UNKNOWN.has(ERRNO_NAMES.get(koffi.errno()) ?? '')) return false
    fail('renameat2', from)
  }

  return {
    takeReadLease(fd) {
      // The default signal of a lease break, SIGIO, would end the process; SIGURG is ignored by default.
      if (fcntl(fd, F_SETSIG, SIGURG) !== 0) return 'unsupported'
      if (fcntl(fd, F_SETLEASE, F_RDLCK) === 0) return 'granted'
      return koffi.errno() === constants.errno.EAGAIN ? 'busy' : 'unsupported'
    },
    holdsReadLease: (fd) => fcntl(fd, F_GETLEASE, 0) === F_RDLCK,
    releaseLease(fd) {
      fcntl(fd, F_SETLEASE, F_UNLCK)
    },
    syncFilesystem(fd) {
      if (syncfs(fd) !== 0) fail('syncfs')
    },
    filesystemSynced: (fd) =>
      new Promise((resolve, reject) => {
        syncfs.async(fd, (error: unknown, result: number) => {
          if (error === null && result === 0) resolve()
          // What the system says is left in another thread.
          else reject(error ?? Object.assign(new Error('EIO: syncfs'), { code: 'EIO', errno: -constants.errno.EIO, syscall: 'syncfs' }))
        })
      }),
    lockFile: (fd) =>
      new Promise((resolve, reject) => {
        flock.async(fd, LOCK_EX | LOCK_NB, (error: unknown, result: number) => {
          if (error === null) resolve(result === 0)
          else reject(error)
        })
      }),
    forgetCached(fd) {
      // Advice: what cannot be followed is none.
      fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)
    },
    xattrs(path) {
      const cPath = cString(path)
      const length = Number(llistxattr(cPath, list, list.length))
      return listed('llistxattr', length, path, (name) => Number(lgetxattr(cPath, name, value, value.length)))
    },
    xattrsOf(fd) {
      const length = Number(flistxattr(fd, list, list.length))
      return listed('flistxattr', length, undefined, (name) => Number(fgetxattr(fd, name, value, value.length)))
    },
    setXattr(of, name, content) {
      const [cName, bytes] = [cString(name), Buffer.from(content, 'latin1')]
      const result =
        typeof of === 'number' ? fsetxattr(of, cName, bytes, bytes.length, 0) : lsetxattr(cString(of), cName, bytes, bytes.length, 0)
      if (result !== 0) fail('setxattr', typeof of === 'number' ? undefined : of)
    },
    removeXattr(of, name) {
      const result = typeof of === 'number' ? fremovexattr(of, cString(name)) : lremovexattr(cString(of), cString(name))
      if (result !== 0) fail('removexattr', typeof of === 'number' ? undefined : of)
    },
    setModified(path, mtimeNs) {
      setTimes(mtimeNs)
      if (utimensat(AT_FDCWD, cString(path), times, AT_SYMLINK_NOFOLLOW) !== 0) fail('utimensat', path)
    },
    setModifiedOf(fd, mtimeNs) {
      setTimes(mtimeNs)
      if (futimens(fd, times) !== 0) fail('futimens')
    },
    linkOpen(fd, directory, name) {
      const cName = cString(name)
      if (mayLinkEmpty && linkat(fd, NO_PATH, directory, cName, AT_EMPTY_PATH) === 0) return
      // By its descriptor alone whoever has no right to search every directory may not, before Linux 6.10 (linkat(2)).
      if (mayLinkEmpty && ERRNO_NAMES.get(koffi.errno()) !== 'ENOENT') fail('linkat', name)
      if (linkat(AT_FDCWD, cString(`/proc/self/fd/${fd}`), directory, cName, AT_SYMLINK_FOLLOW) !== 0) fail('linkat', name)
      mayLinkEmpty = false
    },
    openAt(directory, name, flags, mode) {
      const fd = Number(openat(directory, cString(name), flags | O_CLOEXEC, mode))
      return fd < 0 ? fail('openat', name) : fd
    },
    renameAt(fromDirectory, from, toDirectory, to) {
      if (renameat(fromDirectory, cString(from), toDirectory, cString(to)) !== 0) fail('renameat', from)
    },
    makeNode(path, mode, device) {
      if (mknod(cString(path), mode, device) !== 0) fail('mknod', path)
    },
    exchange: (a, b) => rename(a, b, RENAME_EXCHANGE),
    renameToNew: (from, to) => rename(from, to, RENAME_NOREPLACE),
    exitAtOnce(status) {
      exit(status)
    },
    notify(address, message) {
      const fd = socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0)
      if (fd < 0) fail('socket')
      try {
        const path = Buffer.from(address, 'utf8')
        // A leading '@' stands for the abstract namespace, whose names begin with NUL (unix(7)).
        if (path[0] === 0x40) path[0] = 0
        const sockaddr = Buffer.concat([Buffer.from([AF_UNIX, 0]), path])
        const bytes = Buffer.from(message, 'utf8')
        if (Number(sendto(fd, bytes, bytes.length, 0, sockaddr, sockaddr.length)) < 0) fail('sendto')
      } finally {
        close(fd)
      }
    },
  }
}

export const libc = open()
