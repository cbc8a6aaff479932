/**
 * Questions to a running program on the same host: JSON over HTTP over a Unix socket (`admin.sock`, `agent.sock`).
 *
 * POST /NAME with a JSON body; the answer is `{"result": …}`, `{"error": {code, message, details}}`, or a stream of bytes
 * whose trailer says how it ended. Only the owner of the socket file may ask (mode 0600); that is all the authentication.
 *
 * Invariant: a caller gets the whole answer or an error, never a part that looks whole. A stream that breaks off, by an
 * error of its route or by the death of the program, lacks the trailer `outcome: whole`. It prevents `cat` and `restore`
 * from ending well with half a file.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, renameSync, statSync, unlinkSync } from 'node:fs'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { createConnection } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { asPacsimileError, ERRORS, type ErrorCode, errnoOf, PacsimileError } from './errors.ts'
import { TEMPORARY_PREFIX } from './files.ts'
import { LOCAL_REPLY_BYTES_MAX, LOCAL_REQUEST_BYTES_MAX } from './limits.ts'
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

const JSON_TYPE = 'application/json'
const STREAM_TYPE = 'application/octet-stream'
/** Trailer of a stream: `whole`, or the error as base64 of its JSON. */
const OUTCOME = 'outcome'

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
    else sendJson(answer, { result: await answered })
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

async function jsonBody(from: IncomingMessage, bytesMax: number, what: string): Promise<unknown> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of from as AsyncIterable<Buffer>) {
    length += part.length
    if (length > bytesMax) throw new PacsimileError('protocol', `${what} has more than ${bytesMax} bytes`)
    parts.push(part)
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8')) as unknown
  } catch (error) {
    throw new PacsimileError('protocol', `${what} is not JSON`, { cause: error })
  }
}

/** JSON has no bigint: they become decimal strings. */
function jsonText(value: unknown): string {
  return JSON.stringify(value, (_, field: unknown) => (typeof field === 'bigint' ? field.toString() : field))
}

function sendJson(answer: ServerResponse, value: object): void {
  answer.writeHead(200, { 'content-type': JSON_TYPE }).end(jsonText(value))
}

async function sendBytes(answer: ServerResponse, source: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
  // The head waits for the first bytes, so that a route that fails at once still answers with a plain error.
  const begin = (): unknown => answer.headersSent || answer.writeHead(200, { 'content-type': STREAM_TYPE, 'trailer': OUTCOME })
  for await (const bytes of source) {
    signal.throwIfAborted()
    begin()
    if (!answer.write(bytes)) await once(answer, 'drain', { signal })
  }
  begin()
  answer.addTrailers({ [OUTCOME]: 'whole' })
  answer.end()
}

function sendError(answer: ServerResponse, { code, message, details }: PacsimileError): void {
  const error = { code, message, details }
  if (!answer.headersSent) {
    sendJson(answer, { error })
    return
  }
  answer.addTrailers({ [OUTCOME]: Buffer.from(jsonText(error)).toString('base64') })
  answer.end()
}

/** Asks, and waits for the answer. @throws what the route threw, or `call.unreachable` */
export async function callLocal(socketFile: string, name: string, body: unknown, call: LocalCall): Promise<unknown> {
  try {
    return await resultOf(await post(socketFile, name, body, call), name)
  } catch (error) {
    throw asCallError(error, socketFile, name, call)
  }
}

/** Asks for bytes. The iteration ends well only when all of them came. @throws what the route threw, or `call.unreachable` */
export async function* streamLocal(socketFile: string, name: string, body: unknown, call: LocalCall): AsyncGenerator<Buffer, void> {
  try {
    const answer = await post(socketFile, name, body, call)
    if (answer.headers['content-type'] !== STREAM_TYPE) {
      await resultOf(answer, name)
      throw new PacsimileError('protocol', `Request ${name} was answered with JSON instead of bytes`)
    }
    for await (const bytes of answer as AsyncIterable<Buffer>) yield bytes
    const outcome = answer.trailers[OUTCOME]
    if (outcome === undefined) throw new PacsimileError('protocol', `The answer to ${name} ended without saying that it is whole`)
    if (outcome !== 'whole') throw rebuiltError(JSON.parse(Buffer.from(outcome, 'base64').toString('utf8')))
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

async function resultOf(answer: IncomingMessage, name: string): Promise<unknown> {
  const reply = await jsonBody(answer, LOCAL_REPLY_BYTES_MAX, `The answer to ${name}`)
  if (typeof reply !== 'object' || reply === null) throw new PacsimileError('protocol', `The answer to ${name} is not an object`)
  if ('error' in reply) throw rebuiltError(reply.error)
  return 'result' in reply ? reply.result : undefined
}

function rebuiltError(sent: unknown): PacsimileError {
  const { code, message, details } = sent as { code: string; message: string; details: Record<string, unknown> }
  return new PacsimileError(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'internal', message, { details })
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
