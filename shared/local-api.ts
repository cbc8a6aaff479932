/**
 * Questions to a running program on the same host: JSON over HTTP over a Unix socket (`admin.sock`, `agent.sock`).
 *
 * POST /NAME with a JSON body; how it is answered is in api-answer.ts. Invariant: only the owner of the socket file may ask (mode 0600);
 * that is all the authentication, so the file has its mode before it has its name. It prevents a moment in which anybody may ask.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, renameSync, statSync, unlinkSync } from 'node:fs'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { createConnection } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { JSON_TYPE, jsonBody, jsonText, readBytes, readResult, sendBytes, sendError, sendResult } from './api-answer.ts'
import { asPacsimileError, errnoOf, PacsimileError } from './errors.ts'
import { TEMPORARY_PREFIX } from './files.ts'
import { LOCAL_REQUEST_BYTES_MAX } from './limits.ts'
import { openSocketFile } from './socket-file.ts'

/** Answers one question; an async iterable is sent as bytes, anything else as JSON. `signal` aborts when the asker is gone. */
export type LocalRoute = (body: unknown, signal: AbortSignal) => Promise<unknown> | AsyncIterable<Uint8Array>
export type LocalRoutes = Readonly<Record<string, LocalRoute>>

export interface LocalServer extends AsyncDisposable {
  /** Ends what is being answered, and removes the socket file. */
  close(): Promise<void>
}

export interface LocalCall {
  /** The error for nobody listening. */
  readonly unreachable: 'collector-unreachable' | 'agent-unreachable'
  readonly signal?: AbortSignal
}

/**
 * Call this while holding the lock of the data directory: a stale socket file is replaced, and only that lock tells
 * apart two programs that start at the same moment.
 * @throws locked when a program listens already
 */
export async function serveLocal(socketFile: string, routes: LocalRoutes): Promise<LocalServer> {
  if (await isListening(socketFile)) throw new PacsimileError('locked', `Another process listens on ${socketFile}`)
  const closing = new AbortController()
  const server = createServer((asked, answer) => void respond(asked, answer, routes, closing.signal))
  // Bound under another name, so that the name appears with its mode set, and replaces a stale one in a single step.
  const temporary = join(dirname(socketFile), `${TEMPORARY_PREFIX}${randomBytes(6).toString('hex')}`)
  let inode: number
  try {
    using bound = openSocketFile(temporary)
    server.listen(bound.address)
    await once(server, 'listening')
    chmodSync(temporary, 0o600)
    inode = statSync(temporary).ino
    renameSync(temporary, socketFile)
  } catch (error) {
    server.close()
    throw asPacsimileError(error, `Listening on ${socketFile}`)
  }

  async function end(): Promise<void> {
    closing.abort(new PacsimileError('internal', 'The program is stopping'))
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    if (statSync(socketFile, { throwIfNoEntry: false })?.ino === inode) unlinkSync(socketFile)
    await closed
  }
  let ended: Promise<void> | undefined
  const close = (): Promise<void> => (ended ??= end())
  return { close, [Symbol.asyncDispose]: close }
}

async function isListening(socketFile: string): Promise<boolean> {
  try {
    using file = openSocketFile(socketFile)
    const socket = createConnection(file.address)
    await once(socket, 'connect')
    socket.destroy()
    return true
  } catch (error) {
    if (isNobodyThere(error)) return false
    throw asPacsimileError(error, `Looking who listens on ${socketFile}`)
  }
}

function isNobodyThere(error: unknown): boolean {
  const errno = errnoOf(error)
  return errno === 'ENOENT' || errno === 'ECONNREFUSED'
}

async function respond(asked: IncomingMessage, answer: ServerResponse, routes: LocalRoutes, closing: AbortSignal): Promise<void> {
  const gone = new AbortController()
  answer.once('close', () => gone.abort())
  const signal = AbortSignal.any([gone.signal, closing])
  try {
    const route = routeOf(asked, routes)
    const answered = route(await jsonBody(asked, LOCAL_REQUEST_BYTES_MAX, 'The request'), signal)
    if (Symbol.asyncIterator in answered) await sendBytes(answer, answered, signal)
    else sendResult(answer, await answered)
  } catch (error) {
    sendError(answer, asPacsimileError(error, `Request ${asked.url ?? ''}`))
  }
}

function routeOf(asked: IncomingMessage, routes: LocalRoutes): LocalRoute {
  const name = (asked.url ?? '').slice(1)
  const route = asked.method === 'POST' && Object.hasOwn(routes, name) ? routes[name] : undefined
  if (route === undefined) throw new PacsimileError('unsupported', `This program does not know the request ${JSON.stringify(name)}`)
  return route
}

/** Asks, and waits for the answer. @throws what the route threw, or `call.unreachable` */
export async function callLocal(socketFile: string, name: string, body: unknown, call: LocalCall): Promise<unknown> {
  try {
    return await readResult(await post(socketFile, name, body, call), name)
  } catch (error) {
    throw asCallError(error, socketFile, name, call)
  }
}

/** Asks for bytes. The iteration ends well only when all of them came. @throws what the route threw, or `call.unreachable` */
export async function* streamLocal(socketFile: string, name: string, body: unknown, call: LocalCall): AsyncGenerator<Buffer, void> {
  try {
    yield* readBytes(await post(socketFile, name, body, call), name)
  } catch (error) {
    throw asCallError(error, socketFile, name, call)
  }
}

async function post(socketFile: string, name: string, body: unknown, call: LocalCall): Promise<IncomingMessage> {
  const text = jsonText(body ?? null)
  if (Buffer.byteLength(text) > LOCAL_REQUEST_BYTES_MAX) {
    throw new PacsimileError('usage', `The request ${name} has more than ${LOCAL_REQUEST_BYTES_MAX} bytes`)
  }
  using file = openSocketFile(socketFile)
  const headers = { 'content-type': JSON_TYPE, 'connection': 'close' }
  const signal = call.signal === undefined ? {} : { signal: call.signal }
  const asking = request({ socketPath: file.address, method: 'POST', path: `/${name}`, agent: false, headers, ...signal })
  const responded = once(asking, 'response') as Promise<[IncomingMessage]>
  // After the answer has begun, its reader is told of errors; the request repeats them, and would end the process.
  asking.on('error', () => {})
  asking.end(text)
  const [answer] = await responded
  return answer
}

function asCallError(error: unknown, socketFile: string, name: string, { unreachable, signal }: LocalCall): unknown {
  if (signal?.aborted === true) return signal.reason
  if (isNobodyThere(error)) {
    const directory = dirname(socketFile)
    const missing = existsSync(directory) ? '' : ', a directory that does not exist: is it the right one, and was anything set up there?'
    return new PacsimileError(unreachable, `Nobody listens on ${basename(socketFile)} in ${directory}${missing}`, { cause: error })
  }
  const errno = errnoOf(error)
  if (errno === 'ECONNRESET' || errno === 'EPIPE') {
    return new PacsimileError(unreachable, `The program on ${socketFile} went away while it answered ${name}`, { cause: error })
  }
  return asPacsimileError(error, `Asking ${name} of ${socketFile}`)
}
