/**
 * The edge of a thread that writes restored files: batches in, what became of them out (restore-threads.ts). Content that is
 * not in the replica is read from the packs where the thread can open them. What it does not find there is asked for, and comes back in the order
 * asked for.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { release } from '../shared/bytes.ts'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, type ErrorCode, PacsimileError } from '../shared/errors.ts'
import type { ChunkRef } from '../shared/version.ts'
import type { ChunkResult } from './history-source.ts'
import { type OpenRepository, PackReader } from './pack-reader.ts'
import type { FramePlace } from './repository/frame-file.ts'
import { type FilesDone, type FilesPlace, FilesWriter, type FileTask } from './restore-files.ts'

export interface WriterPlace {
  readonly place: FilesPlace
  /** What the thread reads itself. */
  readonly packs: OpenRepository | undefined
}

export type WriterTask =
  | { readonly kind: 'write'; readonly files: readonly FileTask[] }
  /** One of the results that were wanted. */
  | { readonly kind: 'content'; readonly result: ChunkResult }
  /** Where what was looked for is in the packs. */
  | { readonly kind: 'places'; readonly places: readonly (FramePlace | undefined)[] }
  /** There will be no more of anything: whatever is under way is given up, and the thread ends. */
  | { readonly kind: 'end' }

export type WriterWord =
  | { readonly kind: 'want'; readonly refs: readonly ChunkRef[] }
  | { readonly kind: 'look'; readonly names: readonly Digest[] }
  | { readonly kind: 'written'; readonly bytes: number }
  | { readonly kind: 'done'; readonly done: FilesDone }
  | { readonly kind: 'error'; readonly code: ErrorCode; readonly message: string }

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort
const say = (word: WriterWord): void => port.postMessage(word, [])
const { place, packs } = workerData as WriterPlace
const reader = packs === undefined ? undefined : new PackReader(packs)
const writer = new FilesWriter(place, (bytes) => say({ kind: 'written', bytes }))

const arrived: ChunkResult[] = []
const placesArrived: (readonly (FramePlace | undefined)[])[] = []
let wake: (() => void) | undefined
let isEnding = false
let writing: Promise<void> = Promise.resolve()

function fetched(refs: readonly ChunkRef[]): AsyncIterator<ChunkResult> {
  return reader === undefined ? asked(refs) : readFrom(reader, refs)
}

async function* readFrom(from: PackReader, refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult> {
  if (refs.length === 0) return
  say({ kind: 'look', names: refs.map(({ digest }) => digest) })
  while (placesArrived.length === 0) await word()
  const places = placesArrived.shift() ?? []
  for (const [i, ref] of refs.entries()) {
    const found = places[i]
    const bytes = found === undefined ? undefined : from.read(found, ref.digest)
    if (bytes !== undefined) {
      yield { bytes }
      // Whoever asks for the next is done with it.
      release(bytes)
    } else {
      // It may have been moved, or mended; and if not, the history knows why.
      yield* asked([ref])
    }
  }
}

async function* asked(refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult> {
  if (refs.length === 0) return
  say({ kind: 'want', refs })
  for (let left = refs.length; left > 0; left--) {
    while (arrived.length === 0) await word()
    yield arrived.shift() as ChunkResult
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
    case 'write':
      writing = writer.write(task.files, fetched).then(
        (done) => say({ kind: 'done', done }),
        (error: unknown) => {
          const { code, message } = asPacsimileError(error, `Writing to ${place.to}`)
          say({ kind: 'error', code, message })
        },
      )
      return
    case 'content':
      // Structured cloning makes plain bytes of a Buffer.
      arrived.push(
        'bytes' in task.result
          ? { bytes: Buffer.from(task.result.bytes.buffer, task.result.bytes.byteOffset, task.result.bytes.byteLength) }
          : task.result,
      )
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
  writer[Symbol.dispose]()
  reader?.[Symbol.dispose]()
  port.close()
}
