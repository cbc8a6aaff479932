/**
 * Content of a source for who writes it. Much of it is read from the packs by several threads, ahead of whoever takes it, where they can be
 * opened: so that one large file is not read by one thread alone.
 *
 * Invariant: there is one result for each chunk, in the order asked for, and what is read ahead is bounded. It prevents a file that is larger than memory
 * from being held in it, where it is written more slowly than it is read.
 */
import { release } from '../shared/bytes.ts'
import type { ChunkRef } from '../shared/version.ts'
import { ChunkThreads } from './chunk-threads.ts'
import type { ChunkResult, HistorySource } from './history-source.ts'
import type { PackAccess } from './pack-reader.ts'
import type { FramePlace } from './repository/frame-file.ts'
import { bytesOf } from './restore-order.ts'

const AHEAD_BYTES = 16 << 20
/** Less is read sooner than threads for it have begun. */
const THREADED_BYTES = 16 << 20
/** Looked up at once. */
const PLACES = 1024

export class PackedContent implements AsyncDisposable {
  readonly #source: HistorySource
  #opened: Promise<PackAccess | undefined> | undefined
  #threads: ChunkThreads | undefined

  constructor(source: HistorySource) {
    this.#source = source
  }

  /** Opened when they are first asked for: where a replica has everything no key is looked for. */
  packs(): Promise<PackAccess | undefined> {
    return (this.#opened ??= this.#source.packs?.() ?? Promise.resolve(undefined))
  }

  /** @throws what the source throws */
  async *chunks(refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult> {
    const isLittle = this.#threads === undefined && bytesOf(refs) < THREADED_BYTES
    const packs = isLittle ? undefined : await this.packs()
    if (packs === undefined) {
      yield* this.#source.chunks(refs)
      return
    }
    this.#threads ??= new ChunkThreads({ replica: undefined, packs: { directory: packs.directory, dataKey: packs.dataKey } })
    for (let at = 0; at < refs.length; at += PLACES) {
      const some = refs.slice(at, at + PLACES)
      yield* this.#read(this.#threads, some, await packs.places(some.map(({ digest }) => digest)))
    }
  }

  async *#read(threads: ChunkThreads, refs: readonly ChunkRef[], places: readonly (FramePlace | undefined)[]): AsyncGenerator<ChunkResult> {
    const ahead: Promise<Buffer | undefined>[] = []
    let begun = 0
    let bytes = 0
    for (const ref of refs) {
      for (let next = refs[begun]; next !== undefined && (ahead.length === 0 || bytes + next.length <= AHEAD_BYTES); next = refs[++begun]) {
        const place = places[begun]
        const read = place === undefined ? Promise.resolve(undefined) : threads.read({ kind: 'packed', name: next.digest, place })
        // It is told to who comes to it.
        read.catch(() => {})
        ahead.push(read)
        bytes += next.length
      }
      const found = await ahead.shift()
      bytes -= ref.length
      if (found === undefined) {
        // It may have been moved, or mended; and if not, the history knows why.
        yield* this.#source.chunks([ref])
      } else {
        yield { bytes: found, isOwn: true, isVerified: true }
        // Whoever asks for the next is done with it, or has taken it.
        release(found)
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#threads?.[Symbol.asyncDispose]()
  }
}
