/**
 * The threads that write restored files, seen from outside: batches go to whichever is free, which reads them from the replica or the packs itself;
 * content that it cannot read is brought to it from the source.
 *
 * A thread holds one batch at a time, so memory is bounded by their number. Small restores have no thread. Invariant: the first error that
 * ends the restore ends all of it. It prevents a disk that is full from being written to by the others for as long as they can.
 */
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import type { ChunkRef } from '../shared/version.ts'
import type { ChunkResult, HistorySource } from './history-source.ts'
import { PackedContent } from './packed-content.ts'
import { type FilesDone, type FilesPlace, FilesWriter, type FileTask } from './restore-files.ts'
import { encodeTasks } from './restore-tasks.ts'
import type { WriterTask, WriterWord } from './restore-worker.ts'

/** Beyond this many the disk is what is waited for. */
const THREADS_MAX = 4

export interface WritingParts {
  readonly source: HistorySource
  readonly place: FilesPlace
  readonly onWritten: (bytes: number) => void
  readonly onDone: (done: FilesDone, files: number) => void
}

/** @throws space, io, and whatever the source throws */
export async function writeFiles(batches: readonly (readonly FileTask[])[], parts: WritingParts): Promise<void> {
  await using threads = new WriterThreads()
  await threads.write(batches, parts)
}

/** Undefined where there will be no more. */
export type NextBatch = () => Promise<readonly FileTask[] | undefined>

export class WriterThreads implements AsyncDisposable {
  readonly #threads: WriterThread[] = []

  /** @throws space, io, and whatever the source throws; nothing more can be written then */
  async write(batches: readonly (readonly FileTask[])[], parts: WritingParts): Promise<void> {
    if (batches.length === 0) return
    await using content = new PackedContent(parts.source)
    const waiting = batches.values()
    if (batches.length <= 1) await writeHere(batches, parts, content)
    else await this.#write(() => Promise.resolve(waiting.next().value), parts, content, batches.length)
  }

  /** The same of what is not known yet, and is much. */
  async writeComing(next: NextBatch, parts: WritingParts): Promise<void> {
    await using content = new PackedContent(parts.source)
    await this.#write(next, parts, content, Number.POSITIVE_INFINITY)
  }

  async #write(next: NextBatch, parts: WritingParts, content: PackedContent, batches: number): Promise<void> {
    const wanted = Math.min(THREADS_MAX, Math.max(2, availableParallelism()), batches)
    while (this.#threads.length < wanted) this.#threads.push(new WriterThread())
    const { bytesPerSecond } = parts.place
    const place = { ...parts.place, bytesPerSecond: bytesPerSecond && bytesPerSecond / this.#threads.length }
    const work = async (thread: WriterThread): Promise<void> => {
      thread.begin({ ...parts, place }, content)
      for (let files = await next(); files !== undefined; files = await next()) parts.onDone(await thread.write(files), files.length)
    }
    try {
      await Promise.all(this.#threads.map(work))
    } catch (error) {
      await this[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#threads.splice(0).map((thread) => thread.end()))
  }
}

async function writeHere(
  batches: readonly (readonly FileTask[])[],
  { place, onWritten, onDone }: WritingParts,
  content: PackedContent,
): Promise<void> {
  using writer = new FilesWriter(place, onWritten)
  for (const files of batches) onDone(await writer.write(files, (refs) => content.chunks(refs)), files.length)
}

class WriterThread {
  readonly #worker: Worker
  readonly #exited: Promise<unknown>
  #parts: WritingParts | undefined
  #content: PackedContent | undefined
  #bringing: Promise<void> = Promise.resolve()
  /** What it writes now. */
  #files: readonly FileTask[] = []
  /** Their chunks by name, as the source has named them, once one is asked for. */
  #refs: ReadonlyMap<Digest, ChunkRef> | undefined
  #answer: PromiseWithResolvers<FilesDone> | undefined
  #failure: PacsimileError | undefined

  constructor() {
    const url = new URL(`./restore-worker${extname(import.meta.filename)}`, import.meta.url)
    // What it opens by calls of its own is closed by it.
    this.#worker = new Worker(url, { execArgv: [], trackUnmanagedFds: false })
    this.#exited = once(this.#worker, 'exit').catch(() => undefined)
    this.#worker.on('message', (word: WriterWord) => this.#take(word))
    this.#worker.on('error', (error) => this.#fail(error))
    this.#worker.on('exit', () => this.#fail(new PacsimileError('internal', 'A thread that writes files ended')))
  }

  /** What is written from here on is of these. */
  begin(parts: WritingParts, content: PackedContent): void {
    this.#parts = parts
    this.#content = content
    this.#tell({ kind: 'begin', place: parts.place })
  }

  write(files: readonly FileTask[]): Promise<FilesDone> {
    // It may have ended before it was given anything.
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    const answer = Promise.withResolvers<FilesDone>()
    this.#answer = answer
    this.#files = files
    this.#refs = undefined
    const bytes = encodeTasks(files)
    this.#tell({ kind: 'write', files: bytes }, [bytes.buffer])
    return answer.promise
  }

  #take(word: WriterWord): void {
    switch (word.kind) {
      case 'open':
        this.#open().catch((error: unknown) => this.#fail(error))
        return
      case 'want':
        // One after the other: results come in the order in which they were wanted.
        this.#bringing = this.#bringing.then(() => this.#bring(this.#named(word.refs))).catch((error: unknown) => this.#fail(error))
        return
      case 'look':
        this.#look(word.names).catch((error: unknown) => this.#fail(error))
        return
      case 'written':
        this.#parts?.onWritten(word.bytes)
        return
      case 'done':
        this.#answer?.resolve(word.done)
        return
      case 'error':
        this.#fail(new PacsimileError(word.code, word.message))
    }
  }

  /** A source may know more of a chunk than its name, which does not go through the thread. */
  #named(refs: readonly ChunkRef[]): ChunkRef[] {
    this.#refs ??= new Map(this.#files.flatMap(({ version }) => version.chunks).map((ref) => [ref.digest, ref]))
    return refs.map((ref) => this.#refs?.get(ref.digest) ?? ref)
  }

  async #open(): Promise<void> {
    const packs = await this.#content?.packs()
    this.#tell({ kind: 'packs', packs: packs && { directory: packs.directory, dataKey: packs.dataKey } })
  }

  async #bring(refs: readonly ChunkRef[]): Promise<void> {
    for await (const result of this.#content?.chunks(refs) ?? []) this.#tell({ kind: 'content', result }, memoryOf(result))
  }

  async #look(names: readonly Digest[]): Promise<void> {
    const packs = await this.#content?.packs()
    this.#tell({ kind: 'places', places: (await packs?.places(names)) ?? [] })
  }

  #tell(task: WriterTask, given: readonly ArrayBuffer[] = []): void {
    this.#worker.postMessage(task, given)
  }

  #fail(error: unknown): void {
    this.#failure ??= asPacsimileError(error, 'Restoring')
    this.#answer?.reject(this.#failure)
  }

  /** Not by `terminate`: native code that is interrupted in a call ends the whole process. */
  async end(): Promise<void> {
    this.#tell({ kind: 'end' })
    await this.#exited
  }
}

/** What of it is given away and not copied. */
function memoryOf(result: ChunkResult): ArrayBuffer[] {
  if (!('bytes' in result) || result.isOwn !== true) return []
  const { buffer } = result.bytes
  return buffer instanceof ArrayBuffer ? [buffer] : []
}
