/**
 * A copy in a bucket of anything that speaks S3 (docs/format.md, "Copies").
 *
 * A finished file is one object. A file that still grows stands as parts, `NAME.tail-OFFSET`, each put once. Invariant: every put is
 * conditional: what is there already is compared, never overwritten, but by `replace`. So of two collectors that write one history
 * one is refused at the first place where they differ, and a takeover fences the old one by putting an empty part where that one
 * would go on. The only door to the S3 client.
 */
import { createHash, randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type PutObjectCommandInput,
  PutObjectRetentionCommand,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3'
import { asPacsimileError, PacsimileError, reasonOf } from '../../shared/errors.ts'
import { SMALL_FILE_BYTES_MAX } from '../../shared/limits.ts'
import {
  type ByteSource,
  type CopiedFile,
  type Copy,
  commonBytes,
  copiedSource,
  fenced,
  piecesOf,
  requireSmall,
  type SmallFile,
  sourceOf,
} from './copy.ts'
import { asFile, type FoundObject, fileNameOf, joined, type Tail, tailName, tailsOf } from './s3-tails.ts'

export interface S3Place {
  readonly bucket: string
  /** Without a slash at its end; '' for the whole bucket. */
  readonly prefix: string
  readonly endpoint?: string | undefined
  readonly region?: string | undefined
  /** As AWS writes them: `aws_access_key_id = …`, `aws_secret_access_key = …`. Without it the client looks in its usual places. */
  readonly credentialsFile?: string | undefined
  /** Finished files are locked for so long where the bucket can do that. */
  readonly lockDays?: number | undefined
}

const CONNECT_MS_MAX = 10_000
/** A connection on which nothing moves. */
const SILENT_MS_MAX = 30_000
const ATTEMPTS = 2
const REQUESTS_AT_ONCE = 16
const DAY_MS = 24 * 3_600_000

export class S3Copy implements Copy {
  readonly url: string
  readonly #place: S3Place
  readonly #client: S3Client
  readonly #signal: AbortSignal

  private constructor(place: S3Place, client: S3Client, signal: AbortSignal) {
    this.url = `s3:${place.bucket}${place.prefix === '' ? '' : `/${place.prefix}`}`
    this.#place = place
    this.#client = client
    this.#signal = signal
  }

  /** Nothing is asked of the server yet. `signal` ends whatever is under way. @throws key-missing, format-invalid */
  static async open(place: S3Place, signal: AbortSignal): Promise<S3Copy> {
    const credentials = place.credentialsFile === undefined ? {} : { credentials: await readCredentials(place.credentialsFile) }
    const endpoint = place.endpoint === undefined ? {} : { endpoint: place.endpoint, forcePathStyle: true }
    const client = new S3Client({
      ...credentials,
      ...endpoint,
      region: place.region ?? 'us-east-1',
      maxAttempts: ATTEMPTS,
      // Servers other than Amazon's do not know the newer checksums.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: { connectionTimeout: CONNECT_MS_MAX, socketTimeout: SILENT_MS_MAX },
    })
    return new S3Copy(place, client, signal)
  }

  #key(name: string): string {
    return this.#place.prefix === '' ? name : `${this.#place.prefix}/${name}`
  }

  #where(name: string): { Bucket: string; Key: string } {
    return { Bucket: this.#place.bucket, Key: this.#key(name) }
  }

  async #ask<Answer>(what: string, ask: (options: { abortSignal: AbortSignal }) => Promise<Answer>): Promise<Answer> {
    try {
      return await ask({ abortSignal: this.#signal })
    } catch (error) {
      if (statusOf(error) === 404 && error instanceof Error && error.name === 'NoSuchBucket')
        throw new PacsimileError('not-found', `There is no bucket ${this.#place.bucket}`, { cause: error })
      if (statusOf(error) !== undefined) throw error
      throw new PacsimileError('io', `${what}: ${reasonOf(error) || 'the connection failed'}`, { cause: error })
    }
  }

  // ---- reading -----------------------------------------------------------------------------------------------------

  async *#objects(prefix: string): AsyncGenerator<FoundObject> {
    const own = this.#key('').length
    let token: string | undefined
    do {
      const asked = { Bucket: this.#place.bucket, Prefix: this.#key(prefix), ...(token === undefined ? {} : { ContinuationToken: token }) }
      const what = `Listing ${this.url}`
      const answer = await this.#ask(what, (options) => this.#client.send(new ListObjectsV2Command(asked), options)).catch(
        (error: unknown) => {
          throw refusal(error, what)
        },
      )
      for (const { Key, Size, LastModified } of answer.Contents ?? [])
        if (Key !== undefined) yield { name: Key.slice(own), bytes: Size ?? 0, modifiedMs: LastModified?.getTime() ?? 0 }
      token = answer.NextContinuationToken
    } while (token !== undefined)
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<CopiedFile> {
    let name: string | undefined
    let objects: FoundObject[] = []
    // Parts sort right behind the object that they are of.
    for await (const object of this.#objects(prefix)) {
      signal?.throwIfAborted()
      const of = fileNameOf(object)
      if (of !== name && name !== undefined) yield asFile(name, objects)
      if (of !== name) objects = []
      name = of
      objects.push(object)
    }
    if (name !== undefined) yield asFile(name, objects)
  }

  async #tails(name: string): Promise<Tail[]> {
    const found: FoundObject[] = []
    for await (const object of this.#objects(`${name}.tail-`)) found.push(object)
    return tailsOf(found)
  }

  async read(name: string, offset: number, length: number): Promise<Buffer> {
    const whole = await this.#get(name, offset, length)
    if (whole !== undefined) return whole.bytes
    const tails = joined(await this.#tails(name)).parts
    if (tails.length === 0) throw new PacsimileError('not-found', `${this.url} has no ${name}`)
    const pieces: Buffer[] = []
    const wanted = tails.filter((tail) => tail.offset < offset + length && tail.offset + tail.bytes > offset)
    await inGroups(wanted, async ({ offset: start, bytes }, i) => {
      const from = Math.max(offset, start)
      const piece = await this.#get(tailName(name, start), from - start, Math.min(offset + length, start + bytes) - from)
      if (piece === undefined) throw new PacsimileError('io', `${tailName(name, start)} of ${this.url} went away`)
      pieces[i] = piece.bytes
    })
    return Buffer.concat(pieces)
  }

  /** Undefined where there is no such object. */
  async #get(name: string, offset: number, length: number): Promise<SmallFile | undefined> {
    const range = { Range: `bytes=${offset}-${offset + Math.max(1, length) - 1}` }
    const what = `Reading ${name} of ${this.url}`
    try {
      const answer = await this.#ask(what, (options) =>
        this.#client.send(new GetObjectCommand({ ...this.#where(name), ...range }), options),
      )
      const bytes = Buffer.from((await this.#ask(what, async () => answer.Body?.transformToByteArray())) ?? [])
      return { bytes: bytes.subarray(0, length), version: answer.ETag ?? '' }
    } catch (error) {
      if (statusOf(error) === 404) return undefined
      // Behind its end.
      if (statusOf(error) === 416) return { bytes: Buffer.alloc(0), version: '' }
      throw refusal(error, what)
    }
  }

  // ---- writing -----------------------------------------------------------------------------------------------------

  async prove(): Promise<void> {
    const name = `probe-${randomUUID()}`
    const put = (text: string, input: Partial<PutObjectCommandInput>): Promise<boolean> =>
      this.#put(name, sourceOf(Buffer.from(text)), input)
    const isKept =
      (await put('a', { IfNoneMatch: '*' })) && !(await put('b', { IfNoneMatch: '*' })) && !(await put('c', { IfMatch: '"0"' }))
    await this.#delete(name, true)
    if (!isKept)
      throw new PacsimileError('unsupported', `The server of ${this.url} ignores conditions of puts: two collectors could write there`)
  }

  /** False where the condition did not hold. */
  async #put(name: string, source: ByteSource, input: Partial<PutObjectCommandInput>): Promise<boolean> {
    const what = `Writing ${name} to ${this.url}`
    const digest = createHash('md5')
    let small: Buffer = Buffer.alloc(0)
    // The server compares, so that what it keeps is what was meant; the pieces are read twice rather than all held.
    for await (const piece of piecesOf(source)) {
      digest.update(piece)
      small = piece
    }
    const isSmall = small.length === source.bytes
    const body = isSmall ? small : Readable.from(piecesOf(source), { objectMode: false })
    try {
      await this.#ask(what, (options) =>
        this.#client.send(
          new PutObjectCommand({
            ...this.#where(name),
            Body: body,
            ContentLength: source.bytes,
            ContentMD5: digest.digest('base64'),
            ...input,
          }),
          options,
        ),
      )
      return true
    } catch (error) {
      // 409: somebody else writes the same at this moment.
      if (statusOf(error) === 412 || statusOf(error) === 409) return false
      if (statusOf(error) === 404 && input.IfMatch !== undefined) return false
      throw refusal(error, what)
    } finally {
      if (body instanceof Readable) body.destroy()
    }
  }

  async append(name: string, offset: number, bytes: Buffer): Promise<void> {
    const part = tailName(name, offset)
    if (await this.#put(part, sourceOf(bytes), { IfNoneMatch: '*' })) return
    const present = (await this.#get(part, 0, bytes.length + 1))?.bytes
    if (present?.length === 0) throw fenced(this.url, `it has closed ${name} behind byte ${offset}`)
    if (present === undefined || !bytes.subarray(0, present.length).equals(present.subarray(0, bytes.length)))
      throw fenced(this.url, `it has written something else behind byte ${offset} of ${name}`)
    // It was put before, and the answer was lost.
    if (present.length > bytes.length) throw new PacsimileError('io', `${part} of ${this.url} is longer than it was`)
    if (present.length < bytes.length) await this.append(name, offset + present.length, bytes.subarray(present.length))
  }

  async finish(name: string, source: ByteSource): Promise<void> {
    if (!(await this.#put(name, source, { IfNoneMatch: '*', ...this.#lock() }))) {
      const [present] = await Array.fromAsync(this.list(name))
      const isSame =
        present?.isFinished === true &&
        present.bytes === source.bytes &&
        (await commonBytes(copiedSource(this, name, present.bytes), source)) === source.bytes
      if (!isSame) throw fenced(this.url, `${name} is finished there, and another one`)
    }
    await this.#removeTails(name)
  }

  #lock(): Partial<PutObjectCommandInput> {
    const until = this.#lockedUntil
    return until === undefined ? {} : { ObjectLockMode: 'COMPLIANCE', ObjectLockRetainUntilDate: until }
  }

  get #lockedUntil(): Date | undefined {
    const { lockDays } = this.#place
    return lockDays === undefined ? undefined : new Date(Date.now() + lockDays * DAY_MS)
  }

  async renew(name: string): Promise<void> {
    const until = this.#lockedUntil
    if (until === undefined) return
    const what = `Renewing the lock of ${name} in ${this.url}`
    const asked = { ...this.#where(name), Retention: { Mode: 'COMPLIANCE' as const, RetainUntilDate: until } }
    await this.#ask(what, (options) => this.#client.send(new PutObjectRetentionCommand(asked), options)).catch((error: unknown) => {
      throw refusal(error, what)
    })
  }

  /** They are not read any more; where they may not be removed, they stay. A fence always does. */
  async #removeTails(name: string): Promise<void> {
    const tails = (await this.#tails(name)).filter(({ bytes }) => bytes > 0)
    await inGroups(tails, ({ offset }) => this.#delete(tailName(name, offset), true))
  }

  async #delete(name: string, mayStay: boolean): Promise<void> {
    const what = `Removing ${name} from ${this.url}`
    try {
      await this.#ask(what, (options) => this.#client.send(new DeleteObjectCommand(this.#where(name)), options))
    } catch (error) {
      if (statusOf(error) === 404 || (mayStay && statusOf(error) === 403)) return
      throw refusal(error, what)
    }
  }

  async cut(name: string, bytes: number): Promise<number> {
    // The last first, so that what is left has no gap.
    let left = bytes
    for (const tail of joined(await this.#tails(name)).parts.toReversed()) {
      if (tail.offset + tail.bytes <= bytes) break
      await this.#delete(tailName(name, tail.offset), false)
      left = tail.offset
    }
    return left
  }

  async replace(name: string, source: ByteSource): Promise<void> {
    await this.#put(name, source, this.#lock())
    await this.#removeTails(name)
  }

  async fence(name: string, offset: number): Promise<boolean> {
    const part = tailName(name, offset)
    return (await this.#put(part, sourceOf(Buffer.alloc(0)), { IfNoneMatch: '*' })) || (await this.#get(part, 0, 1))?.bytes.length === 0
  }

  async find(name: string): Promise<SmallFile | undefined> {
    const found = await this.#get(name, 0, SMALL_FILE_BYTES_MAX + 1)
    if (found !== undefined) requireSmall(`${name} of ${this.url}`, found.bytes.length)
    return found
  }

  async write(name: string, bytes: Buffer, over: SmallFile | 'nothing' | 'anything'): Promise<void> {
    const source = sourceOf(bytes)
    if (typeof over === 'string') {
      if (await this.#put(name, source, over === 'nothing' ? { IfNoneMatch: '*' } : {})) return
    } else {
      if (await this.#put(name, source, { IfMatch: over.version })) return
      // Some servers compare with what stands between the quotes.
      const isSame = (await this.find(name))?.version === over.version
      if (isSame && (await this.#put(name, source, { IfMatch: over.version.replaceAll('"', '') }))) return
    }
    if ((await this.find(name))?.bytes.equals(bytes) !== true) throw fenced(this.url, `${name} is another one than it was`)
  }

  async remove(name: string): Promise<void> {
    await inGroups(await this.#tails(name), ({ offset }) => this.#delete(tailName(name, offset), false))
    await this.#delete(name, false)
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy()
    return Promise.resolve()
  }
}

/** Several at once: each is a round trip. */
async function inGroups<Item>(items: readonly Item[], work: (item: Item, index: number) => Promise<void>): Promise<void> {
  for (let at = 0; at < items.length; at += REQUESTS_AT_ONCE)
    await Promise.all(items.slice(at, at + REQUESTS_AT_ONCE).map((item, i) => work(item, at + i)))
}

function statusOf(error: unknown): number | undefined {
  return error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined
}

function refusal(error: unknown, what: string): PacsimileError {
  if (!(error instanceof S3ServiceException)) return asPacsimileError(error, what)
  return new PacsimileError('io', `${what}: ${error.name} (${error.$metadata.httpStatusCode ?? 'no status'}) ${error.message}`, {
    cause: error,
  })
}

async function readCredentials(file: string): Promise<{ accessKeyId: string; secretAccessKey: string; sessionToken?: string }> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    throw asPacsimileError(error, `Reading the credentials in ${file}`)
  }
  const value = (name: string): string | undefined => new RegExp(`^\\s*${name}\\s*=\\s*(\\S+)\\s*$`, 'm').exec(text)?.[1]
  const accessKeyId = value('aws_access_key_id')
  const secretAccessKey = value('aws_secret_access_key')
  const sessionToken = value('aws_session_token')
  if (accessKeyId === undefined || secretAccessKey === undefined)
    throw new PacsimileError('format-invalid', `${file} does not name aws_access_key_id and aws_secret_access_key`)
  return { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) }
}
