/**
 * What a copy holds, file by file, as it was listed and as it was written since.
 *
 * Invariant: before anything is written, what is there is compared: a copy that holds more than the repository, or other content in
 * a file that grows, is another history and is left as it is. It prevents a data directory that was set back (restored from an
 * old backup, or cloned) from writing over what came after it.
 */
import type { Reflected } from './catalog.ts'
import type { CopiedRepository } from './copier.ts'
import { matchOf } from './copy-match.ts'
import { COPIED_KINDS, type Copy, copiedSource, fenced, fileOf, nameOf, prefixOf } from './repository/copy.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import { LocalFile } from './repository/local-file.ts'
import type { ReadPosition } from './repository/repository.ts'

export interface Holding {
  readonly bytes: number
  readonly isFinished: boolean
}

export class CopyInventory {
  readonly #files = { pack: new Map<number, Holding>(), segment: new Map<number, Holding>() }
  /** Below it nothing is to be written any more. */
  readonly #first = { pack: 1, segment: 1 }
  #fencedName: string | undefined

  /** @throws not-found, io */
  static async take(copy: Copy, signal: AbortSignal): Promise<CopyInventory> {
    const inventory = new CopyInventory()
    for (const kind of COPIED_KINDS) {
      for await (const { name, bytes, isFinished, isFenced } of copy.list(prefixOf(kind), signal)) {
        const file = fileOf(name)
        if (file === undefined) continue
        if (isFenced && !isFinished) inventory.#fencedName = name
        inventory.#files[kind].set(file.number, { bytes, isFinished })
      }
    }
    return inventory
  }

  numbers(kind: FrameFileKind): number[] {
    return [...this.#files[kind].keys()].sort((a, b) => a - b)
  }

  holding(kind: FrameFileKind, number: number): Holding | undefined {
    return this.#files[kind].get(number)
  }

  bytesOf(kind: FrameFileKind, number: number): number {
    return this.#files[kind].get(number)?.bytes ?? 0
  }

  isFinished(kind: FrameFileKind, number: number): boolean {
    return this.#files[kind].get(number)?.isFinished === true
  }

  firstUnfinished(kind: FrameFileKind): number {
    return this.#first[kind]
  }

  /** All that there will be of a file is there, or it grows. */
  passed(kind: FrameFileKind, number: number, growing: number): void {
    if (number === this.#first[kind] && number < growing) this.#first[kind] = number + 1
  }

  wrote(kind: FrameFileKind, number: number, bytes: number, isFinished: boolean): void {
    this.#files[kind].set(number, { bytes, isFinished })
  }

  removed(name: string): void {
    const file = fileOf(name)
    if (file !== undefined) this.#files[file.kind].delete(file.number)
  }

  /** A file is to be written anew, from its beginning. */
  forget(kind: FrameFileKind, number: number): void {
    this.#files[kind].delete(number)
    this.#first[kind] = Math.min(this.#first[kind], number)
  }

  /** What was committed and is not there. */
  missingBytes(repository: CopiedRepository, committed: Reflected): number {
    let missing = 0
    for (const kind of COPIED_KINDS) {
      const to = positionIn(committed, kind)
      for (let number = this.#first[kind]; number <= to.file; number++) {
        if (this.isFinished(kind, number)) continue
        const bytes = number === to.file ? to.offset : (repository.extentOf(kind, number)?.bytes ?? 0)
        missing += Math.max(0, bytes - this.bytesOf(kind, number))
      }
    }
    return missing
  }

  /**
   * `before` is what was known when the connection before this one failed. @throws fenced where it is another history; cuts what
   * a crash has left of an append
   */
  async reconcile(copy: Copy, repository: CopiedRepository, committed: Reflected, before: CopyInventory | undefined): Promise<void> {
    if (this.#fencedName !== undefined) throw fenced(copy.url, `it has closed ${this.#fencedName}`)
    for (const kind of COPIED_KINDS) {
      const to = positionIn(committed, kind)
      for (const [number, { bytes, isFinished }] of this.#files[kind]) {
        const name = nameOf(kind, number)
        if (number >= to.file && (isFinished || number > to.file))
          throw fenced(copy.url, `it holds all of ${name}, of which the repository has less`)
        if (!isFinished) await this.#compare(copy, repository, kind, number, bytes, to)
        if (!isFinished && copy.localPath !== undefined) await this.#makeDurable(copy, kind, number, before)
      }
    }
  }

  /** What an append that failed has left may be in the page cache alone, and never reach the disk. */
  async #makeDurable(copy: Copy, kind: FrameFileKind, number: number, before: CopyInventory | undefined): Promise<void> {
    const found = this.bytesOf(kind, number)
    const durable = Math.min(found, before?.bytesOf(kind, number) ?? found)
    this.wrote(kind, number, await copy.cut(nameOf(kind, number), durable), false)
  }

  async #compare(
    copy: Copy,
    repository: CopiedRepository,
    kind: FrameFileKind,
    number: number,
    bytes: number,
    to: ReadPosition,
  ): Promise<void> {
    const name = nameOf(kind, number)
    const extent = number === to.file ? { bytes: to.offset, state: 'sealing' as const } : repository.extentOf(kind, number)
    // What the repository lacks, it may be given by the copy some day; of what it has given up, a copy may have more.
    if (extent === undefined || (extent.state === 'ended' && bytes >= extent.bytes)) return
    if (bytes > extent.bytes) throw fenced(copy.url, `it holds ${bytes} bytes of ${name}, the repository ${extent.bytes}`)
    if (bytes === 0) return
    await using own = await LocalFile.open(repository.pathOf(kind, number), extent.bytes)
    const match = await matchOf(copiedSource(copy, name, bytes), own)
    if (match.kind === 'other') throw fenced(copy.url, `it holds another content in ${name}`)
    // What is rotten here the copy has whole, and can give back.
    if (match.kind !== 'torn') return
    this.wrote(kind, number, await copy.cut(name, match.from), false)
  }
}

function positionIn(committed: Reflected, kind: FrameFileKind): ReadPosition {
  return kind === 'pack' ? committed.packs : committed.segments
}
