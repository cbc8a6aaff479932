/**
 * The edge of a thread that writes restored files: batches in, what became of them out (restore-threads.ts). Content that is
 * not in the replica is read from the packs where the thread can open them, which are opened when the first is. What it does not find there is asked
 * for, and comes back in the order asked for.
 */
import { parentPort } from 'node:worker_threads'
import { asBuffer, release } from '../shared/bytes.ts'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, type ErrorCode, PacsimileError } from '../shared/errors.ts'
import type { ChunkRef } from '../shared/version.ts'
import type { ChunkResult } from './history-source.ts'
import type { OpenRepository, PackReader } from './pack-reader.ts'
import type { FramePlace } from './repository/frame-file.ts'
import { type FilesDone, type FilesPlace, FilesWriter } from './restore-files.ts'
import { bytesOf, LARGE_BYTES, portionsOf } from './restore-order.ts'
import { decodeTasks } from './restore-tasks.ts'

export type WriterTask =
  | { readonly kind: 'begin'; readonly place: FilesPlace }
  /** By `encodeTasks`. */
  | { readonly kind: 'write'; readonly files: Uint8Array }
  /** What the thread may read itself, if anything. */
  | { readonly kind: 'packs'; readonly packs: OpenRepository | undefined }
  /** One of the results that were wanted. */
  | { readonly kind: 'content'; readonly result: ChunkResult }
  /** Where what was looked for is in the packs. */
  | { readonly kind: 'places'; readonly places: readonly (FramePlace | undefined)[] }
  /** There will be no more of anything: whatever is under way is given up, and the thread ends. */
  | { readonly kind: 'end' }

export type WriterWord =
  | { readonly kind: 'open' }
  | { readonly kind: 'want'; readonly refs: readonly ChunkRef[] }
  | { readonly kind: 'look'; readonly names: readonly Digest[] }
  | { readonly kind: 'written'; readonly bytes: number }
  | { readonly kind: 'done'; readonly done: FilesDone }
  | { readonly kind: 'error'; readonly code: ErrorCode; readonly message: string }

/** How often it is told how much was written. */
const TELL_MS = 100

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort
const say = (word: WriterWord): void => port.postMessage(word, [])
let writer: FilesWriter | undefined
let to = ''

/** Written, and not told yet. */
let untold = 0
let toldAt = performance.now()
let reader: PackReader | 'none' | undefined
const packsArrived: (OpenRepository | undefined)[] = []
const arrived: ChunkResult[] = []
const placesArrived: (readonly (FramePlace | undefined)[])[] = []
let wake: (() => void) | undefined
let isEnding = false
let writing: Promise<void> = Promise.resolve()

async function write(files: Uint8Array): Promise<void> {
  if (writer === undefined) throw new PacsimileError('internal', 'Nobody said where files are written')
  const done = await writer.write(decodeTasks(files), fetched)
  tellWritten()
  say({ kind: 'done', done })
}

/** Told often enough for whoever watches: a word for each of many small files costs more than some of them. */
function noteWritten(bytes: number): void {
  untold += bytes
  if (performance.now() - toldAt >= TELL_MS) tellWritten()
}

function tellWritten(): void {
  say({ kind: 'written', bytes: untold })
  untold = 0
  toldAt = performance.now()
}

async function* fetched(refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult> {
  if (refs.length === 0) return
  reader ??= await openPacks()
  yield* reader === 'none' || bytesOf(refs) > LARGE_BYTES ? asked(refs) : readFrom(reader, refs)
}

async function openPacks(): Promise<PackReader | 'none'> {
  say({ kind: 'open' })
  while (packsArrived.length === 0) await word()
  const packs = packsArrived.shift()
  if (packs === undefined) return 'none'
  const { PackReader: Reader } = await import('./pack-reader.ts')
  return new Reader(packs)
}

async function* readFrom(from: PackReader, refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult> {
  say({ kind: 'look', names: refs.map(({ digest }) => digest) })
  while (placesArrived.length === 0) await word()
  const places = placesArrived.shift() ?? []
  for (const [i, ref] of refs.entries()) {
    const found = places[i]
    const bytes = found === undefined ? undefined : from.read(found, ref.digest)
    if (bytes !== undefined) {
      yield { bytes, isVerified: true }
      // Whoever asks for the next is done with it.
      release(bytes)
    } else {
      // It may have been moved, or mended; and if not, the history knows why.
      yield* asked([ref])
    }
  }
}

async function* asked(refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult> {
  const portions = portionsOf(refs)
  let wanted = 0
  for (const [i, portion] of portions.entries()) {
    // The next is brought while this one is written.
    for (let next = portions[wanted]; next !== undefined && wanted <= i + 1; next = portions[++wanted]) say({ kind: 'want', refs: next })
    for (let left = portion.length; left > 0; left--) {
      while (arrived.length === 0) await word()
      const result = arrived.shift() as ChunkResult
      yield result
      if ('bytes' in result) release(result.bytes)
    }
  }
}

/** The next message. @throws internal when the restore has ended */
async function word(): Promise<void> {
  if (isEnding) throw new PacsimileError('internal', 'the restore has ended')
  await new Promise<void>((resolve) => {
    wake = resolve
  })
}

port.on('message', (task: WriterTask) => {
  switch (task.kind) {
    case 'begin':
      writer?.[Symbol.dispose]()
      to = task.place.to
      writer = new FilesWriter(task.place, noteWritten)
      return
    case 'write':
      writing = write(task.files).catch((error: unknown) => {
        const { code, message } = asPacsimileError(error, `Writing to ${to}`)
        say({ kind: 'error', code, message })
      })
      return
    case 'packs':
      packsArrived.push(task.packs)
      break
    case 'content':
      // Structured cloning makes plain bytes of a Buffer.
      arrived.push('bytes' in task.result ? { ...task.result, bytes: asBuffer(task.result.bytes) } : task.result)
      break
    case 'places':
      placesArrived.push(task.places)
      break
    case 'end':
      isEnding = true
      void endAfter(writing)
  }
  wake?.()
})

/** With its port the thread has nothing left to wait for. */
async function endAfter(batch: Promise<void>): Promise<void> {
  await batch
  writer?.[Symbol.dispose]()
  if (reader !== 'none') reader?.[Symbol.dispose]()
  port.close()
}
