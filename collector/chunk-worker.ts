/**
 * The edge of a thread that reads chunks (chunk-threads.ts): from a file of the replica, or from a pack. What it gives was held against its digest.
 */
import { closeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import type { Digest } from '../shared/digest.ts'
import { errnoOf } from '../shared/errors.ts'
import type { RelativePath } from '../shared/path.ts'
import { type OpenRepository, PackReader } from './pack-reader.ts'
import type { FramePlace } from './repository/frame-file.ts'
import { openPlain, readChunk, replicaAt } from './restore-files.ts'

export interface ChunkPlaces {
  /** The volume's replica, where there is one here. */
  readonly replica: string | undefined
  readonly packs: OpenRepository | undefined
}

/** A piece of a file of the replica, while that is as recorded. */
export interface NearPlace {
  readonly path: RelativePath
  readonly size: number
  readonly mtimeNs: bigint
  readonly offset: number
}

export type ChunkTask =
  | { readonly kind: 'near'; readonly name: Digest; readonly length: number; readonly place: NearPlace }
  | { readonly kind: 'packed'; readonly name: Digest; readonly place: FramePlace }
  | { readonly kind: 'end' }

/** Undefined where it was not there, or not that content. */
export interface ChunkAnswer {
  readonly bytes: Uint8Array<ArrayBuffer> | undefined
}

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort
const places = workerData as ChunkPlaces
const replica = replicaAt(places.replica)
const packs = places.packs === undefined ? undefined : new PackReader(places.packs)

port.on('message', (task: ChunkTask) => {
  switch (task.kind) {
    case 'near':
      answer(readNear(task.place, task.length, task.name))
      return
    case 'packed':
      answer(packs?.read(task.place, task.name))
      return
    case 'end':
      replica?.close()
      packs?.[Symbol.dispose]()
      port.close()
  }
})

function answer(found: Buffer | undefined): void {
  if (found === undefined) {
    port.postMessage({ bytes: undefined } satisfies ChunkAnswer, [])
    return
  }
  // Memory that is shared with others cannot be handed over.
  const isOwn = found.buffer instanceof ArrayBuffer && found.buffer.byteLength === found.length
  const bytes = isOwn ? new Uint8Array(found.buffer) : Uint8Array.from(found)
  port.postMessage({ bytes } satisfies ChunkAnswer, [bytes.buffer])
}

function readNear({ path, size, mtimeNs, offset }: NearPlace, length: number, name: Digest): Buffer | undefined {
  if (replica === undefined) return undefined
  replica.trim()
  const found = openPlain(replica, path)
  if (found === undefined) return undefined
  try {
    return found.size === BigInt(size) && found.mtimeNs === mtimeNs ? readChunk(found.file, offset, length, name) : undefined
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return undefined
  } finally {
    closeSync(found.file)
  }
}
