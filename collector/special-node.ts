/**
 * Fifos, sockets and device nodes: made, and given a mode, without ever being opened.
 *
 * Invariant: no call here opens a node. It prevents a replica that waits for ever for the other end of a fifo, and one
 * that rewinds a tape because it set a mode.
 */
import { chmodSync, closeSync, constants, openSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { errnoOf, PacsimileError } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { pathBuffer } from '../shared/path.ts'

/** open(2): a descriptor that names a file and does not open it. */
const O_PATH = 0o10000000
const TYPES = {
  'fifo': constants.S_IFIFO,
  'socket': constants.S_IFSOCK,
  'character-device': constants.S_IFCHR,
  'block-device': constants.S_IFBLK,
} as const

export type SpecialKind = keyof typeof TYPES

/** Where a node cannot be made whatever is tried again: no right to, or no filesystem for it. */
const REFUSALS = new Set(['EPERM', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP'])

/** Makes a node that only we may use. @throws io where it cannot be made here */
export function makeSpecialNode(at: ByteString, kind: SpecialKind, device: bigint): void {
  try {
    libc?.makeNode(at, TYPES[kind] | 0o600, device)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === undefined || !REFUSALS.has(errno)) throw error
    const isDevice = kind === 'character-device' || kind === 'block-device'
    const advice = isDevice ? '; only root may make devices, and not in every container' : ''
    throw new PacsimileError('io', `a ${kind} cannot be made here (${errno})${advice}`, { cause: error })
  }
}

/** chmod(2) follows symlinks; the magic link of a descriptor leads to what it names and to nothing else. */
export function changeModeUnopened(at: ByteString, mode: number): void {
  const fd = openSync(pathBuffer(at), O_PATH | constants.O_NOFOLLOW)
  try {
    chmodSync(`/proc/self/fd/${fd}`, mode)
  } finally {
    closeSync(fd)
  }
}
