/**
 * fanotify(7) and file handles (open_by_handle_at(2)) through koffi: what Node does not offer, and nothing more.
 *
 * Everything is synchronous and concerns the calling thread; buffers belong to this module, which each thread has for itself.
 * Invariant: a failure is an Error with `code`, as node:fs throws it; names go in and come out as bytes. It prevents a
 * kernel's refusal from being taken for silence.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { constants as systemConstants } from 'node:os'
import koffi from 'koffi'
import type { ByteString } from '../../shared/bytes.ts'

/** Event bits (linux/fanotify.h). All fit 32 bits. */
export const EVENT = {
  modify: 0x2,
  attributes: 0x4,
  closeWrite: 0x8,
  movedFrom: 0x40,
  movedTo: 0x80,
  create: 0x100,
  delete: 0x200,
  overflow: 0x4000,
  filesystemError: 0x8000,
  rename: 0x1000_0000,
  onDirectory: 0x4000_0000,
} as const

const INIT = {
  closeOnExec: 0x1,
  nonBlocking: 0x2,
  unlimitedQueue: 0x10,
  reportFid: 0x200,
  reportDirFid: 0x400,
  reportName: 0x800,
  reportTarget: 0x1000,
}
const MARK = { add: 0x1, filesystem: 0x100 }
const O_CLOEXEC = 0o2000000
const O_LARGEFILE = 0o100000
const O_NOATIME = 0o1000000
const O_NONBLOCK = 0o4000
const O_PATH = 0o10000000
const AT_FDCWD = -100
const POLLIN = 1
const MFD_CLOEXEC = 1
const PROT_READ_WRITE = 3
const MAP_SHARED = 1
const FALLOC_PUNCH_HOLE_KEEP_SIZE = 3
/** Handles of all filesystems in use are far smaller (MAX_HANDLE_SZ is 128). */
const HANDLE_BYTES_MAX = 128
/**
 * Of a file that is gone and whose inode is just being given to another one, ext4 says ENOMEM (iget_locked() finds it
 * I_CREATING): a moment later it says ESTALE. Together these attempts take half a second.
 */
const HANDLE_ATTEMPTS_MAX = 32
const STATFS_BYTES = 256
const FSID_OFFSET = 56

/** What a name group is asked for. Without renames as one event: for kernels before 5.17. */
const NAME_MASK = EVENT.modify | EVENT.attributes | EVENT.closeWrite | EVENT.create | EVENT.delete | EVENT.onDirectory
const NAME_MASKS = {
  modern: NAME_MASK + EVENT.rename + EVENT.filesystemError,
  compatible: NAME_MASK | EVENT.movedFrom | EVENT.movedTo,
} as const

/** `modern` since Linux 5.17; `compatible` since 5.9: a rename is two events, and targets have no handle of their own. */
export type NameReports = keyof typeof NAME_MASKS

/** Of two names for one number the one that node:fs uses. */
const ERRNO_NAMES = new Map([
  ...Object.entries(systemConstants.errno).map(([name, value]): [number, string] => [value, name]),
  [systemConstants.errno.EAGAIN, 'EAGAIN'],
  [systemConstants.errno.EOPNOTSUPP, 'EOPNOTSUPP'],
])

const library = koffi.load(null)
const fanotifyInit = library.func('int fanotify_init(uint flags, uint event_f_flags)')
const fanotifyMark = library.func('int fanotify_mark(int fd, uint flags, uint64_t mask, int dirfd, const void *path)')
const openByHandle = library.func('int open_by_handle_at(int mount_fd, void *handle, int flags)')
const nameToHandle = library.func('int name_to_handle_at(int dirfd, const void *path, void *handle, void *mount_id, int flags)')
const statfs = library.func('int statfs(const void *path, void *buffer)')
const pollCall = library.func('int poll(void *fds, ulong count, int timeout)')
const eventfd = library.func('int eventfd(uint initial, int flags)')
const readlinkAt = library.func('intptr_t readlinkat(int dirfd, const void *path, void *buffer, size_t size)')

const memfdCreate = library.func('int memfd_create(const char *name, uint flags)')
const ftruncate = library.func('int ftruncate(int fd, int64_t length)')
const mmap = library.func('uintptr_t mmap(uintptr_t address, size_t length, int protection, int flags, int fd, int64_t offset)')
const munmap = library.func('int munmap(uintptr_t address, size_t length)')
const readCall = library.func('intptr_t read(int fd, uintptr_t address, size_t length)')
const fallocate = library.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)')

const handle = Buffer.alloc(8 + HANDLE_BYTES_MAX)
const mountId = Buffer.alloc(8)
const filesystem = Buffer.alloc(STATFS_BYTES)
const link = Buffer.alloc(8192)

const nobodyWakes = new Int32Array(new SharedArrayBuffer(4))

function pause(ms: number): void {
  Atomics.wait(nobodyWakes, 0, 0, ms)
}

function fail(call: string, about = ''): never {
  const errno = koffi.errno()
  const name = ERRNO_NAMES.get(errno) ?? `errno ${errno}`
  throw Object.assign(new Error(`${name}: ${call}${about === '' ? '' : ` ${about}`}`), { code: name, syscall: call })
}

function cString(bytes: ByteString): Buffer {
  return Buffer.from(`${bytes}\0`, 'latin1')
}

/** A group that reports directory handles and names. @throws EPERM without CAP_SYS_ADMIN, EINVAL where the kernel is too old */
export function openNameGroup(reports: NameReports, isUnlimited: boolean): number {
  const target = reports === 'modern' ? INIT.reportTarget : 0
  const report = INIT.reportFid | INIT.reportDirFid | INIT.reportName | target
  const fd: number = fanotifyInit(INIT.closeOnExec | INIT.nonBlocking | report | (isUnlimited ? INIT.unlimitedQueue : 0), O_CLOEXEC)
  return fd < 0 ? fail('fanotify_init') : fd
}

/** A group whose events carry an open descriptor of the file that was closed after writing. */
export function openPinGroup(isUnlimited: boolean): number {
  const flags = INIT.closeOnExec | INIT.nonBlocking | (isUnlimited ? INIT.unlimitedQueue : 0)
  const fd: number = fanotifyInit(flags, O_CLOEXEC | O_LARGEFILE | O_NOATIME)
  return fd < 0 ? fail('fanotify_init') : fd
}

/** Marks the whole filesystem that holds `directory` (an open descriptor). @throws EXDEV, EOPNOTSUPP, ENODEV where it cannot be */
export function markNames(group: number, reports: NameReports, directory: number): void {
  mark(group, NAME_MASKS[reports], directory)
}

export function markPins(group: number, directory: number): void {
  mark(group, EVENT.closeWrite, directory)
}

function mark(group: number, mask: number, directory: number): void {
  if (fanotifyMark(group, MARK.add | MARK.filesystem, mask >>> 0, directory, cString('.')) !== 0) fail('fanotify_mark')
}

/** The identity that events give to a file: filesystem id, then its handle. */
export type HandleKey = ByteString

/** The filesystem id as events carry it: 8 bytes. */
export function filesystemId(directory: number): ByteString {
  if (statfs(cString(`/proc/self/fd/${directory}/.`), filesystem) !== 0) fail('statfs')
  return filesystem.toString('latin1', FSID_OFFSET, FSID_OFFSET + 8)
}

/** Of an absolute path; undefined where there is nothing. */
export function handleKey(filesystemId: ByteString, path: ByteString): HandleKey | undefined {
  handle.writeUInt32LE(HANDLE_BYTES_MAX, 0)
  if (nameToHandle(AT_FDCWD, cString(path), handle, mountId, 0) === 0)
    return filesystemId + handle.toString('latin1', 0, 8 + handle.readUInt32LE(0))
  const errno = ERRNO_NAMES.get(koffi.errno())
  return errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ESTALE' ? undefined : fail('name_to_handle_at')
}

/** A descriptor (O_PATH) of the file itself, whatever its name is now; undefined where it is gone. `mount` is open for reading on its filesystem. */
export function openHandle(mount: number, key: HandleKey): number | undefined {
  const bytes = handle.write(key.slice(8), 0, 'latin1')
  if (bytes < 8) throw new RangeError('a handle has at least 8 bytes')
  for (let attempt = 1; ; attempt++) {
    const fd: number = openByHandle(mount, handle, O_PATH | O_CLOEXEC)
    if (fd >= 0) return fd
    const errno = ERRNO_NAMES.get(koffi.errno())
    if (errno === 'ESTALE' || errno === 'ENOENT') return undefined
    if (errno !== 'ENOMEM' || attempt === HANDLE_ATTEMPTS_MAX) fail('open_by_handle_at')
    pause(attempt)
  }
}

let ownDescriptors: number | undefined

/** The directory of this process's descriptors: held, because the way to it takes as long as what is asked there. */
function descriptors(): number {
  if (ownDescriptors === undefined) {
    const fd = openSync('/proc/self/fd', constants.O_RDONLY | constants.O_DIRECTORY)
    // Of a worker thread: when that ends.
    process.once('exit', () => closeSync(fd))
    ownDescriptors = fd
  }
  return ownDescriptors
}

/** Where an open file is, as the kernel names it now. */
export function pathOf(fd: number): ByteString {
  const length = Number(readlinkAt(descriptors(), cString(`${fd}`), link, link.length))
  return length < 0 ? fail('readlink', `/proc/self/fd/${fd}`) : link.toString('latin1', 0, length)
}

/** A descriptor that another thread may write to, to wake one that polls. */
export function openWakeup(): number {
  const fd: number = eventfd(0, O_CLOEXEC | O_NONBLOCK)
  return fd < 0 ? fail('eventfd') : fd
}

/** Waits until one of the descriptors can be read, at most `ms`; -1 waits for ever. @returns for each whether it can */
export function poll(fds: readonly number[], ms: number): boolean[] {
  const entries = Buffer.alloc(8 * fds.length)
  for (const [i, fd] of fds.entries()) {
    entries.writeInt32LE(fd, 8 * i)
    entries.writeInt16LE(POLLIN, 8 * i + 4)
  }
  const ready: number = pollCall(entries, fds.length, ms)
  if (ready < 0 && ERRNO_NAMES.get(koffi.errno()) !== 'EINTR') fail('poll')
  return fds.map((_, i) => ready > 0 && entries.readInt16LE(8 * i + 6) !== 0)
}

/** A file in memory, of `bytes` zeros; it takes what is written to it. */
export function createMemoryFile(name: string, bytes: number): number {
  const fd: number = memfdCreate(name, MFD_CLOEXEC)
  if (fd < 0) fail('memfd_create')
  if (ftruncate(fd, bytes) !== 0) fail('ftruncate')
  return fd
}

/** Where the file is mapped, shared with whoever holds it. */
export function mapMemory(fd: number, bytes: number): number {
  const address: number | bigint = mmap(0, bytes, PROT_READ_WRITE, MAP_SHARED, fd, 0)
  return Number(address) <= 0 || BigInt(address) >= 0xffff_ffff_ffff_f000n ? fail('mmap') : Number(address)
}

export function unmapMemory(address: number, bytes: number): void {
  if (munmap(address, bytes) !== 0) fail('munmap')
}

/** read(2) right into mapped memory: what the kernel gives is there even if this process is killed in the middle. Undefined where nothing waits. */
export function readIntoMemory(fd: number, address: number, bytes: number): number | undefined {
  const length = Number(readCall(fd, address, bytes))
  if (length >= 0) return length
  const errno = ERRNO_NAMES.get(koffi.errno())
  return errno === 'EAGAIN' || errno === 'EINTR' ? undefined : fail('read')
}

/** Gives the memory of a range back: it reads as zeros again. */
export function punchHole(fd: number, offset: number, length: number): void {
  if (fallocate(fd, FALLOC_PUNCH_HOLE_KEEP_SIZE, offset, length) !== 0) fail('fallocate')
}
