/**
 * WebDAV, read only: every moment of every volume as a tree of files, for file managers, rclone and davfs2 (docs/protocol.md, "WebDAV").
 *
 * OPTIONS, PROPFIND of depth 0 and 1, GET with ranges, HEAD; anything else is refused. Invariant: a name is answered for only where the
 * restorer may read the volume, as it was at the moment of the address, and no byte is sent that was not held against its digest; an
 * answer that cannot be finished is cut, never filled up. It prevents a file manager from showing another archive, hour or content.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { TLSSocket } from 'node:tls'
import { asPacsimileError, type ErrorCode, PacsimileError } from '../shared/errors.ts'
import { PROPFIND_BYTES_MAX } from '../shared/limits.ts'
import { showPath } from '../shared/path.ts'
import { rangeOf } from './byte-range.ts'
import { etagOf, FILE_TYPE, lastModified, multistatus } from './dav-answer.ts'
import { DavCollections, type DavFile } from './dav-collections.ts'
import { type DavPlace, parseDavUrl } from './dav-place.ts'
import { type Propfind, parsePropfind } from './dav-propfind.ts'
import type { ReadingParts } from './history-api.ts'
import { sendPlain } from './plain-stream.ts'
import type { AllowedReader } from './readers.ts'

const METHODS = 'OPTIONS, PROPFIND, GET, HEAD'
const XML_TYPE = 'application/xml; charset=utf-8'
const REALM = 'Basic realm="Pacsimile", charset="UTF-8"'

const STATUS: Partial<Record<ErrorCode, number>> = {
  'usage': 400,
  'protocol': 400,
  'not-trusted': 403,
  'not-allowed': 403,
  'not-found': 404,
  'outside-window': 404,
  'format-invalid': 404,
  'unsupported': 405,
  'incomplete': 410,
  'busy': 429,
  'rebuilding': 503,
}

export class Dav {
  readonly #parts: ReadingParts
  readonly #collections: DavCollections

  constructor(parts: ReadingParts) {
    this.#parts = parts
    this.#collections = new DavCollections(parts.history, parts.catalog)
  }

  /** Answers one request; never throws. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    try {
      const reader = await this.#parts.readers.byEither(request)
      this.#parts.requireFolded()
      await this.#parts.slots.use(reader.name, () => this.#give(reader, request, response, gone.signal))
    } catch (error) {
      if (!gone.signal.aborted) this.#refuse(request, response, asPacsimileError(error, `WebDAV ${request.method ?? ''}`))
    }
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: PacsimileError): void {
    if (error.code === 'internal' || error.code === 'damage')
      this.#parts.log.error('a WebDAV request was not answered', {
        code: error.code,
        reason: error.message,
        url: request.url,
        stack: error.stack,
      })
    if (response.headersSent) {
      // Whatever came until now must not look whole.
      response.destroy()
      return
    }
    if (error.code === 'unsupported') response.setHeader('allow', METHODS)
    const { socket } = request
    const isGuest = socket instanceof TLSSocket && socket.getPeerX509Certificate() === undefined
    const isUnknown = error.code === 'not-trusted' && isGuest
    if (isUnknown) response.setHeader('www-authenticate', REALM)
    else response.setHeader('connection', 'close')
    const status = isUnknown ? 401 : (STATUS[error.code] ?? 500)
    const text = `${error.message}\n`
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'content-length': Buffer.byteLength(text) })
    response.end(request.method === 'HEAD' ? undefined : text)
  }

  async #give(reader: AllowedReader, request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> {
    const { method = '', url = '' } = request
    if (method === 'OPTIONS') {
      response.writeHead(200, { 'dav': '1', 'allow': METHODS, 'ms-author-via': 'DAV', 'content-length': 0 }).end()
      return
    }
    if (method !== 'PROPFIND' && method !== 'GET' && method !== 'HEAD')
      throw new PacsimileError('unsupported', `${method.slice(0, 20)} is not taken: this is the past, which can be read and not changed`)
    const asked = method === 'PROPFIND' ? await propfindOf(request) : undefined
    const place = parseDavUrl(url)
    const id = this.#parts.access.asked(reader, `dav ${method}`, factsOf(place, request))
    let outcome = 'cut'
    const sent = { bytes: 0 }
    try {
      if (asked === undefined) await this.#getFile(reader, place, request, response, signal, sent)
      else {
        const body = multistatus(await this.#collections.list(reader.allowance, place, request.headers.depth === '1'), asked)
        await sendPlain(response, body, { status: 207, headers: { 'content-type': XML_TYPE } }, signal, sent)
      }
      outcome = 'whole'
    } catch (error) {
      if (!signal.aborted) outcome = asPacsimileError(error, method).code
      throw error
    } finally {
      this.#parts.access.ended(id, outcome, sent.bytes)
    }
  }

  async #getFile(
    { allowance }: AllowedReader,
    place: DavPlace,
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
    sent: { bytes: number },
  ): Promise<void> {
    const file = await this.#collections.file(allowance, place)
    const { version } = file
    const etag = etagOf(version)
    const headers: Record<string, string | number> = {
      'etag': etag,
      'last-modified': lastModified(version),
      'accept-ranges': 'bytes',
      'content-type': FILE_TYPE,
      'x-content-type-options': 'nosniff',
      'cache-control': 'private, no-cache',
    }
    if (isNamed(request.headers['if-none-match'], etag)) {
      response.writeHead(304, headers).end()
      return
    }
    const isForThis = request.headers['if-range'] === undefined || request.headers['if-range'] === etag
    const range = isForThis ? rangeOf(request.headers.range, version.size) : undefined
    if (range === 'none') {
      response.writeHead(416, { ...headers, 'content-range': `bytes */${version.size}`, 'content-length': 0 }).end()
      return
    }
    const { from, until } = range ?? { from: 0, until: version.size }
    const head = {
      status: range === undefined ? 200 : 206,
      headers: {
        ...headers,
        'content-length': until - from,
        ...(range === undefined ? {} : { 'content-range': `bytes ${from}-${until - 1}/${version.size}` }),
      },
    }
    if (request.method === 'HEAD') response.writeHead(head.status, head.headers).end()
    else await sendPlain(response, this.#content(file, from, until), head, signal, sent)
  }

  /** Bytes of a file; only the chunks that hold them are read. @throws damage */
  async *#content({ path, version }: DavFile, from: number, until: number): AsyncGenerator<Buffer> {
    const pieces: { start: number; end: number; ref: (typeof version.chunks)[number] }[] = []
    let offset = 0
    for (const ref of version.chunks) {
      if (offset < until && offset + ref.length > from)
        pieces.push({ ref, start: Math.max(0, from - offset), end: Math.min(ref.length, until - offset) })
      offset += ref.length
    }
    let next = 0
    for await (const result of this.#parts.history.chunks(pieces.map(({ ref }) => ref))) {
      const piece = pieces[next]
      next += 1
      if ('failure' in result) throw new PacsimileError('damage', `${showPath(path)}: ${result.failure}`)
      if (piece === undefined || result.bytes.length !== piece.ref.length)
        throw new PacsimileError('damage', `${showPath(path)}: content came that is not what its digest names`)
      yield result.bytes.subarray(piece.start, piece.end)
    }
    if (next < pieces.length) throw new PacsimileError('damage', `${showPath(path)}: only ${next} of ${pieces.length} chunks came`)
  }
}

async function propfindOf(request: IncomingMessage): Promise<Propfind> {
  const { depth } = request.headers
  if (depth !== '0' && depth !== '1') throw new PacsimileError('not-allowed', 'A PROPFIND is of depth 0 or 1 (propfind-finite-depth)')
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > PROPFIND_BYTES_MAX) throw new PacsimileError('protocol', `A PROPFIND has at most ${PROPFIND_BYTES_MAX} bytes`)
    parts.push(part)
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(parts))
  } catch (error) {
    throw new PacsimileError('protocol', 'The body of this PROPFIND is not UTF-8', { cause: error })
  }
  return parsePropfind(text)
}

function isNamed(ifNoneMatch: string | undefined, etag: string): boolean {
  return ifNoneMatch?.split(',').some((one) => one.trim() === '*' || one.trim().replace(/^W\//, '') === etag) === true
}

function factsOf(place: DavPlace, { headers }: IncomingMessage): object {
  if (place.kind === 'agents') return {}
  if (place.kind === 'volumes') return { agent: place.agent }
  const { agent, volume } = place
  if (place.kind === 'moments') return { agent, volume }
  const range = headers.range === undefined ? {} : { range: headers.range.slice(0, 100) }
  return { agent, volume, at: place.moment, path: showPath(place.path), ...range }
}
