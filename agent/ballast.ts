/**
 * The ballast: a file without any use but to be thrown away when the disk is full.
 *
 * LevelDB must be closed and opened again after a write that failed, and opening needs space itself; only an open journal
 * can be delivered, acknowledged and trimmed, which is what makes room again.
 * Order: written under a temporary name, made durable, then renamed, so that what has its name holds real blocks.
 * Invariant: it is never made where the filesystem would fall below its floor by it, and the journal is not written again
 * before there is room besides it. It prevents a disk that is full for a moment from locking up what would empty it.
 */
import { randomBytes } from 'node:crypto'
import { renameSync, rmSync, statfsSync, unlinkSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { reasonOf } from '../shared/errors.ts'
import { isPresent, syncDirectory, TEMPORARY_PREFIX } from '../shared/files.ts'
import { BALLAST_BYTES, JOURNAL_ROOM_BYTES, SPOOL_FREE_FLOOR } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'

const PIECE_BYTES = 1 << 20

export class Ballast {
  readonly #directory: string
  readonly #file: string
  readonly #log: Log
  #isThere: boolean
  #making: Promise<void> | undefined

  private constructor(directory: string, log: Log) {
    this.#directory = directory
    this.#file = join(directory, 'ballast')
    this.#log = log
    this.#isThere = isPresent(this.#file)
  }

  static open(directory: string, log: Log): Ballast {
    return new Ballast(directory, log)
  }

  /** Whether there is one to be thrown away. */
  get isThere(): boolean {
    return this.#isThere
  }

  /** Bytes that the filesystem has for this process, and how many of them are above its floor. */
  get room(): { readonly freeBytes: number; readonly aboveFloorBytes: number; readonly sizeBytes: number } {
    const { bavail, blocks, bsize } = statfsSync(this.#directory)
    return { freeBytes: bavail * bsize, aboveFloorBytes: (bavail - blocks * SPOOL_FREE_FLOOR) * bsize, sizeBytes: blocks * bsize }
  }

  /** Whether the filesystem has less left than anything of the agent's but its journal may use. */
  get isBelowFloor(): boolean {
    try {
      return this.room.aboveFloorBytes < 0
    } catch {
      // What keeps it from being measured keeps the journal from being written, and is told there.
      return false
    }
  }

  /** Whether the journal may be written again after it found no space: opening it again must still be possible then. */
  get isRoomToWrite(): boolean {
    const { freeBytes, sizeBytes } = this.room
    return freeBytes >= Math.min(JOURNAL_ROOM_BYTES, sizeBytes * SPOOL_FREE_FLOOR)
  }

  /** Makes it where there is none and there is room. It is made again at a later call when it fails. */
  make(): Promise<void> {
    if (this.#isThere || this.room.aboveFloorBytes < BALLAST_BYTES) return Promise.resolve()
    this.#making ??= this.#write().finally(() => {
      this.#making = undefined
    })
    return this.#making
  }

  async #write(): Promise<void> {
    const temporary = join(this.#directory, `${TEMPORARY_PREFIX}ballast`)
    try {
      await using file = await open(temporary, 'w', 0o600)
      // Bytes that no filesystem can compress, or store once.
      for (let written = 0; written < BALLAST_BYTES; written += PIECE_BYTES) await file.writeFile(randomBytes(PIECE_BYTES))
      await file.datasync()
      renameSync(temporary, this.#file)
      syncDirectory(this.#directory)
      this.#isThere = true
    } catch (error) {
      rmSync(temporary, { force: true })
      this.#log.warn('the ballast cannot be made', { file: this.#file, reason: reasonOf(error) })
    }
  }

  /** @returns whether there was one, and its space is free now */
  release(): boolean {
    if (!this.#isThere) return false
    try {
      unlinkSync(this.#file)
      this.#isThere = false
      // Blocks are free for others only after this is durable.
      syncDirectory(this.#directory)
      this.#log.warn('the disk is full: the ballast was thrown away, so that the journal can be opened again', { bytes: BALLAST_BYTES })
      return true
    } catch (error) {
      this.#log.error('the ballast cannot be thrown away', { file: this.#file, reason: reasonOf(error) })
      return false
    }
  }

  /** Resolves when nothing is being written any more. */
  async close(): Promise<void> {
    await this.#making
  }
}
