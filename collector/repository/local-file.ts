/** A file of this host, read in pieces beside whoever appends to it. */
import { type FileHandle, open } from 'node:fs/promises'
import { asPacsimileError, errnoOf, PacsimileError } from '../../shared/errors.ts'
import type { ByteSource } from './copy.ts'

export class LocalFile implements ByteSource, AsyncDisposable {
  readonly bytes: number
  readonly #file: FileHandle
  readonly #path: string

  private constructor(file: FileHandle, path: string, bytes: number) {
    this.#file = file
    this.#path = path
    this.bytes = bytes
  }

  /** Its first `bytes`, or all that it has now. @throws not-found, io */
  static async open(path: string, bytes?: number): Promise<LocalFile> {
    try {
      const file = await open(path, 'r')
      return new LocalFile(file, path, bytes ?? (await file.stat()).size)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') throw new PacsimileError('not-found', `${path} is not there`, { cause: error })
      throw asPacsimileError(error, `Opening ${path}`)
    }
  }

  async read(offset: number, length: number): Promise<Buffer> {
    try {
      const wanted = Math.min(length, this.bytes - offset)
      const { buffer, bytesRead } = await this.#file.read(Buffer.allocUnsafe(wanted), 0, wanted, offset)
      return buffer.subarray(0, bytesRead)
    } catch (error) {
      throw asPacsimileError(error, `Reading ${this.#path}`)
    }
  }

  /** What was written of it by now is on the disk. */
  async sync(): Promise<void> {
    try {
      await this.#file.datasync()
    } catch (error) {
      throw asPacsimileError(error, `Syncing ${this.#path}`)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}
