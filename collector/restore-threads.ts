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
import type { PackAccess } from './pack-reader.ts'
import { type FilesDone, type FilesPlace, FilesWriter, type FileTask } from './restore-files.ts'
import type { WriterPlace, WriterTask, WriterWord } from './restore-worker.ts'

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
  if (batches.length > 1) await writeInThreads(batches, parts)
  else await writeHere(batches, parts)
}

async function writeHere(batches: readonly (readonly FileTask[])[], { source, place, onWritten, onDone }: WritingParts): Promise<void> {
  using writer = new FilesWriter(place, onWritten)
  for (const files of batches) onDone(await writer.write(files, (refs) => source.chunks(refs)[Symbol.asyncIterator]()), files.length)
}

async function writeInThreads(batches: readonly (readonly FileTask[])[], parts: WritingParts): Promise<void> {
  const waiting = batches.values()
  const count = Math.min(THREADS_MAX, Math.max(2, availableParallelism()), batches.length)
  const { bytesPerSecond } = parts.place
  const place = { ...parts.place, bytesPerSecond: bytesPerSecond && bytesPerSecond / count }
  const packs = await parts.source.packs?.()
  const threads = Array.from({ length: count }, () => new WriterThread({ ...parts, place }, packs))
  const work = async (thread: WriterThread): Promise<void> => {
    for (const files of waiting) parts.onDone(await thread.write(files), files.length)
  }
  try {
    await Promise.all(threads.map(work))
  } finally {
    await Promise.all(threads.map((thread) => thread.end()))
  }
}

class WriterThread {
  readonly #parts: WritingParts
  readonly #packs: PackAccess | undefined
  readonly #worker: Worker
  readonly #exited: Promise<unknown>
  #answer: PromiseWithResolvers<FilesDone> | undefined

  constructor(parts: WritingParts, packs: PackAccess | undefined) {
    this.#parts = parts
    this.#packs = packs
    const opened = packs === undefined ? undefined : { directory: packs.directory, dataKey: packs.dataKey }
    const url = new URL(`./restore-worker${extname(import.meta.filename)}`, import.meta.url)
    this.#worker = new Worker(url, { workerData: { place: parts.place, packs: opened } satisfies WriterPlace, execArgv: [] })
    this.#exited = once(this.#worker, 'exit').catch(() => undefined)
    this.#worker.on('message', (word: WriterWord) => this.#take(word))
    this.#worker.on('error', (error) => this.#fail(error))
    this.#worker.on('exit', () => this.#fail(new PacsimileError('internal', 'A thread that writes files ended')))
  }

  write(files: readonly FileTask[]): Promise<FilesDone> {
    const answer = Promise.withResolvers<FilesDone>()
    this.#answer = answer
    this.#tell({ kind: 'write', files })
    return answer.promise
  }

  #take(word: WriterWord): void {
    switch (word.kind) {
      case 'want':
        this.#bring(word.refs).catch((error: unknown) => this.#fail(error))
        return
      case 'look':
        this.#look(word.names).catch((error: unknown) => this.#fail(error))
        return
      case 'written':
        this.#parts.onWritten(word.bytes)
        return
      case 'done':
        this.#answer?.resolve(word.done)
        return
      case 'error':
        this.#fail(new PacsimileError(word.code, word.message))
    }
  }

  async #bring(refs: readonly ChunkRef[]): Promise<void> {
    for await (const result of this.#parts.source.chunks(refs)) this.#tell({ kind: 'content', result }, memoryOf(result))
  }

  async #look(names: readonly Digest[]): Promise<void> {
    this.#tell({ kind: 'places', places: (await this.#packs?.places(names)) ?? [] })
  }

  #tell(task: WriterTask, given: readonly ArrayBuffer[] = []): void {
    this.#worker.postMessage(task, given)
  }

  #fail(error: unknown): void {
    this.#answer?.reject(asPacsimileError(error, 'Restoring'))
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
