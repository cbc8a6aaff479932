/**
 * The system calls by which a directory becomes a mount and stops being one, through koffi.
 *
 * They throw an Error with `code` set to the errno name, as node:fs does. On anything but Linux, `mountCalls` is undefined.
 */
import { constants } from 'node:os'
import koffi from 'koffi'

const MS_RDONLY = 1
const MS_NOSUID = 2
const MS_NODEV = 4
const MNT_FORCE = 1
const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]))

export interface MountCalls {
  /** Mounts what answers on a descriptor of /dev/fuse: to read, without setuid files and devices (mount(2)). `source` is what lists show. */
  mountFuse(source: string, directory: string, options: string): void
  /** Fails with EBUSY while somebody uses it; with `force` whoever uses it gets errors (umount2(2)). */
  unmount(directory: string, force: boolean): void
}

function fail(call: string, directory: string): never {
  const errno = koffi.errno()
  const name = ERRNO_NAMES.get(errno) ?? `errno ${errno}`
  throw Object.assign(new Error(`${name}: ${call} '${directory}'`), { code: name, errno: -errno, syscall: call })
}

function open(): MountCalls | undefined {
  if (process.platform !== 'linux') return undefined
  const library = koffi.load(null)
  const mount = library.func(
    'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *options)',
  )
  const umount2 = library.func('int umount2(const char *target, int flags)')
  return {
    mountFuse(source, directory, options) {
      if (mount(source, directory, 'fuse.pacsimile', MS_RDONLY | MS_NOSUID | MS_NODEV, options) !== 0) fail('mount', directory)
    },
    unmount(directory, force) {
      if (umount2(directory, UMOUNT_NOFOLLOW | (force ? MNT_FORCE | MNT_DETACH : 0)) !== 0) fail('umount', directory)
    },
  }
}

export const mountCalls = open()
