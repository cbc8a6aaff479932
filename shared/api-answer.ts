/**
 * One question and its answer over HTTP, whatever carries it: JSON in; JSON, an error, or a stream of bytes out.
 *
 * The answer is `{"result": …}`, `{"error": {code, message, details}}`, or bytes whose trailer says how they ended. Invariant: an
 * asker gets the whole answer or an error, never a part that looks whole. A stream that breaks off, by an error of what makes it or by
 * the death of the program, lacks the trailer `outcome: whole`. It prevents `cat` and `restore` from ending well with half a file.
 */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { ERRORS, type ErrorCode, PacsimileError } from './errors.ts'
import { LOCAL_REPLY_BYTES_MAX } from './limits.ts'

export const JSON_TYPE = 'application/json'
const STREAM_TYPE = 'application/octet-stream'
/** Trailer of a stream: `whole`, or the error as base64 of its JSON. */
const OUTCOME = 'outcome'

/** @throws protocol for too many bytes, or what is not JSON */
export async function jsonBody(from: IncomingMessage, bytesMax: number, what: string): Promise<unknown> {
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
export function jsonText(value: unknown): string {
  return JSON.stringify(value, (_, field: unknown) => (typeof field === 'bigint' ? field.toString() : field))
}

export function sendResult(answer: ServerResponse, result: unknown): void {
  answer.writeHead(200, { 'content-type': JSON_TYPE }).end(jsonText({ result }))
}

/** @param stallMs a reader that takes nothing for so long loses its connection; without it nobody does */
export async function sendBytes(
  answer: ServerResponse,
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  stallMs?: number,
): Promise<void> {
  // The head waits for the first bytes, so that a route that fails at once still answers with a plain error.
  const begin = (): unknown => answer.headersSent || answer.writeHead(200, { 'content-type': STREAM_TYPE, 'trailer': OUTCOME })
  for await (const bytes of source) {
    signal.throwIfAborted()
    begin()
    if (!answer.write(bytes)) await drained(answer, signal, stallMs)
  }
  signal.throwIfAborted()
  begin()
  answer.addTrailers({ [OUTCOME]: 'whole' })
  answer.end()
}

/** Resolves when the reader has taken what was written. @throws the signal's reason; timeout */
export async function drained(answer: ServerResponse, signal: AbortSignal, stallMs?: number): Promise<void> {
  const stalled = new AbortController()
  const timer =
    stallMs === undefined
      ? undefined
      : setTimeout(() => stalled.abort(new PacsimileError('timeout', `The reader took nothing for ${stallMs / 1000} s`)), stallMs)
  try {
    await once(answer, 'drain', { signal: timer === undefined ? signal : AbortSignal.any([signal, stalled.signal]) })
  } catch (error) {
    if (!stalled.signal.aborted) throw error
    answer.destroy()
    throw stalled.signal.reason
  } finally {
    clearTimeout(timer)
  }
}

/** @param status of an answer that has not begun */
export function sendError(answer: ServerResponse, { code, message, details }: PacsimileError, status = 200): void {
  const error = { code, message, details }
  if (!answer.headersSent) {
    answer.writeHead(status, { 'content-type': JSON_TYPE }).end(jsonText({ error }))
    return
  }
  answer.addTrailers({ [OUTCOME]: Buffer.from(jsonText(error)).toString('base64') })
  answer.end()
}

/** @param name of the question. @throws what was answered with; protocol */
export async function readResult(answer: IncomingMessage, name: string): Promise<unknown> {
  const reply = await jsonBody(answer, LOCAL_REPLY_BYTES_MAX, `The answer to ${name}`)
  if (typeof reply !== 'object' || reply === null) throw new PacsimileError('protocol', `The answer to ${name} is not an object`)
  if ('error' in reply) throw rebuiltError(reply.error)
  return 'result' in reply ? reply.result : undefined
}

/** Ends well only when all bytes came. @throws what was answered with; protocol */
export async function* readBytes(answer: IncomingMessage, name: string): AsyncGenerator<Buffer, void> {
  if (answer.headers['content-type'] !== STREAM_TYPE) {
    await readResult(answer, name)
    throw new PacsimileError('protocol', `Request ${name} was answered with JSON instead of bytes`)
  }
  for await (const bytes of answer as AsyncIterable<Buffer>) yield bytes
  const outcome = answer.trailers[OUTCOME]
  if (outcome === undefined) throw new PacsimileError('protocol', `The answer to ${name} ended without saying that it is whole`)
  if (outcome !== 'whole') throw rebuiltError(JSON.parse(Buffer.from(outcome, 'base64').toString('utf8')))
}

function rebuiltError(sent: unknown): PacsimileError {
  const { code, message, details } = sent as { code: string; message: string; details: Record<string, unknown> }
  return new PacsimileError(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'internal', message, { details })
}
