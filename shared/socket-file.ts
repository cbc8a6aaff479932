/**
 * Addresses of Unix sockets: the same call for a short path and for one that no socket address can hold.
 *
 * `sun_path` takes 107 bytes (unix(7)) and a data directory may lie deeper than that. Its directory is then opened and
 * named through /proc/self/fd, which is short whatever it stands for. It prevents an installation that works in /var/lib
 * and fails, with a cut-off name or EINVAL, below a long mount point.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { basename, dirname } from 'node:path'

/** Longest `sun_path` without its terminating NUL. */
const ADDRESS_BYTES_MAX = 107

/** `address` means the file for as long as this is not disposed of. */
export interface SocketFile extends Disposable {
  readonly address: string
}

/** @throws what open(2) says of the directory */
export function openSocketFile(file: string): SocketFile {
  if (Buffer.byteLength(file) <= ADDRESS_BYTES_MAX) return { address: file, [Symbol.dispose]() {} }
  const directory = openSync(dirname(file), constants.O_RDONLY | constants.O_DIRECTORY)
  return { address: `/proc/self/fd/${directory}/${basename(file)}`, [Symbol.dispose]: () => closeSync(directory) }
}
