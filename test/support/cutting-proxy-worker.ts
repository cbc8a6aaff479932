/** The thread of a CuttingProxy (cutting-proxy.ts): it passes bytes on while the test waits for a command. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { CUT, CUTS, LEFT_BYTES, type ProxyTask } from './cutting-proxy.ts'

const LOOK_MS = 10
if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const { target, shared } = workerData as ProxyTask
const state = new Int32Array(shared)
const sockets = new Set<Socket>()

function cutAll(): void {
  for (const socket of sockets) socket.destroy()
}

function pass(from: Socket): void {
  if (Atomics.load(state, CUT) === 1) {
    from.destroy()
    return
  }
  const to = connect(target, '127.0.0.1')
  for (const socket of [from, to]) {
    sockets.add(socket)
    // The other end is told by its own end.
    socket.on('error', () => {})
    socket.once('close', () => {
      sockets.delete(socket)
      from.destroy()
      to.destroy()
    })
  }
  to.pipe(from)
  from.on('data', (bytes: Buffer) => {
    const left = Atomics.load(state, LEFT_BYTES)
    to.write(bytes.subarray(0, left))
    Atomics.store(state, LEFT_BYTES, Math.max(0, left - bytes.length))
    if (bytes.length < left) return
    Atomics.add(state, CUTS, 1)
    Atomics.store(state, CUT, 1)
    cutAll()
  })
}

const server = createServer(pass).listen(0, '127.0.0.1')
await once(server, 'listening')
setInterval(() => {
  if (Atomics.load(state, CUT) === 1) cutAll()
}, LOOK_MS)
const address = server.address()
parentPort.postMessage(address !== null && typeof address !== 'string' ? address.port : 0, [])
