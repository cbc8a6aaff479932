/**
 * Descriptors in datagrams (unix(7), SCM_RIGHTS) and the death of a parent (prctl(2)), through koffi.
 *
 * Invariant: a message is sent or received whole, with its descriptor, or an Error with `code` says why not. It prevents a
 * descriptor that was believed to be kept from being nowhere.
 */
import { constants } from 'node:os'
import koffi from 'koffi'

const AF_UNIX = 1
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_CMSG_CLOEXEC = 0x4000_0000
const PR_SET_PDEATHSIG = 1
/** Of one control message with one descriptor on a 64-bit system: header 16, descriptor 4, padding 4. */
const CONTROL_BYTES = 24
const CONTROL_LENGTH = 20
const MESSAGE_BYTES_MAX = 4096

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]))

const IOVEC = koffi.struct({ base: 'void *', length: 'size_t' })
const MSGHDR = koffi.struct({
  name: 'void *',
  nameLength: 'uint32_t',
  iov: koffi.pointer(IOVEC),
  iovLength: 'size_t',
  control: 'void *',
  controlLength: 'size_t',
  flags: 'int',
})
const library = koffi.load(null)
const socketCall = library.func('socket', 'int', ['int', 'int', 'int'])
const bindCall = library.func('bind', 'int', ['int', 'void *', 'uint32_t'])
const sendmsg = library.func('sendmsg', 'intptr_t', ['int', koffi.pointer(MSGHDR), 'int'])
const recvmsg = library.func('recvmsg', 'intptr_t', ['int', koffi.inout(koffi.pointer(MSGHDR)), 'int'])
const closeCall = library.func('close', 'int', ['int'])
const prctl = library.func('int prctl(int option, ulong a, ulong b, ulong c, ulong d)')

function fail(call: string): never {
  const errno = koffi.errno()
  const name = ERRNO_NAMES.get(errno) ?? `errno ${errno}`
  throw Object.assign(new Error(`${name}: ${call}`), { code: name, syscall: call })
}

function address(socket: string): Buffer {
  const path = Buffer.from(socket, 'utf8')
  // A leading '@' stands for the abstract namespace, whose names begin with NUL (unix(7)).
  if (path[0] === 0x40) path[0] = 0
  return Buffer.concat([Buffer.from([AF_UNIX, 0]), path])
}

function openSocket(): number {
  const fd: number = socketCall(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0)
  return fd < 0 ? fail('socket') : fd
}

/** Sends one datagram, with a copy of `descriptor` where one is given. */
export function sendDescriptor(socket: string, message: string, descriptor: number | undefined): void {
  const control = Buffer.alloc(CONTROL_BYTES)
  control.writeBigUInt64LE(BigInt(CONTROL_LENGTH), 0)
  control.writeInt32LE(SOL_SOCKET, 8)
  control.writeInt32LE(SCM_RIGHTS, 12)
  control.writeInt32LE(descriptor ?? -1, 16)
  const to = address(socket)
  const text = Buffer.from(message, 'utf8')
  const fd = openSocket()
  try {
    const header = {
      name: to,
      nameLength: to.length,
      iov: [{ base: text, length: text.length }],
      iovLength: 1,
      control: descriptor === undefined ? null : control,
      controlLength: descriptor === undefined ? 0 : CONTROL_BYTES,
      flags: 0,
    }
    if (Number(sendmsg(fd, header, 0)) < 0) fail('sendmsg')
  } finally {
    closeCall(fd)
  }
}

/** A socket at this address that receives such datagrams. */
export function listenForDescriptors(socket: string): number {
  const fd = openSocket()
  const at = address(socket)
  if (bindCall(fd, at, at.length) !== 0) {
    closeCall(fd)
    fail('bind')
  }
  return fd
}

export interface ReceivedMessage {
  readonly message: string
  readonly descriptor: number | undefined
}

/** Resolves with the next datagram; a thread of the pool waits for it. */
export function receiveDescriptor(fd: number): Promise<ReceivedMessage> {
  const text = Buffer.alloc(MESSAGE_BYTES_MAX)
  const control = Buffer.alloc(CONTROL_BYTES)
  const header = {
    name: null,
    nameLength: 0,
    iov: [{ base: text, length: text.length }],
    iovLength: 1,
    control,
    controlLength: CONTROL_BYTES,
    flags: 0,
  }
  return new Promise((resolve, reject) => {
    recvmsg.async(fd, header, MSG_CMSG_CLOEXEC, (error: unknown, length: number | bigint) => {
      if (error !== null && error !== undefined) reject(error instanceof Error ? error : new Error('recvmsg failed'))
      else if (Number(length) < 0) reject(new Error('recvmsg failed'))
      else resolve({ message: text.toString('utf8', 0, Number(length)), descriptor: descriptorIn(control) })
    })
  })
}

function descriptorIn(control: Buffer): number | undefined {
  const isOne =
    control.readBigUInt64LE(0) === BigInt(CONTROL_LENGTH) && control.readInt32LE(8) === SOL_SOCKET && control.readInt32LE(12) === SCM_RIGHTS
  return isOne ? control.readInt32LE(16) : undefined
}

/** This process gets `signal` when the one that started it dies. */
export function dieWithParent(signal: number): void {
  if (prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) !== 0) fail('prctl')
}
