/**
 * What the history's contents are as DICOM: whether a file can be read as it, and of which study it is.
 *
 * Only the first chunks are read, which hold the header, for files are cut where their pixels begin. Invariant: "cannot be read as
 * DICOM" is said of content that was looked at, never of content that could not be had. It prevents damage in a pack from passing for
 * an archive that is being encrypted.
 */
import { dicomTags } from '../shared/dicom.ts'
import type { Digest } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { FileVersion } from '../shared/version.ts'

/** Headers are shorter, but for a few with large sequences: of those the study is not found, and the file is DICOM all the same. */
const HEAD_BYTES = 64 << 10
const REMEMBERED_MAX = 50_000

interface Head {
  readonly isDicom: boolean
  readonly study: string | undefined
}

const NO_DICOM: Head = { isDicom: false, study: undefined }

export class DicomHeads {
  readonly #readChunk: (name: Digest) => Buffer
  readonly #known = new Map<Digest, Head | undefined>()

  constructor(readChunk: (name: Digest) => Buffer) {
    this.#readChunk = readChunk
  }

  /** Undefined where the content cannot be had. */
  isDicom(version: FileVersion): boolean | undefined {
    return this.#of(version)?.isDicom
  }

  /** Its Study Instance UID; undefined where it has none that can be read. */
  studyOf(version: FileVersion): string | undefined {
    return this.#of(version)?.study
  }

  #of(version: FileVersion): Head | undefined {
    if (this.#known.has(version.digest)) return this.#known.get(version.digest)
    const head = this.#look(version)
    // All at once: what is asked of again is asked of soon.
    if (this.#known.size >= REMEMBERED_MAX) this.#known.clear()
    this.#known.set(version.digest, head)
    return head
  }

  #look({ chunks, size }: FileVersion): Head | undefined {
    const pieces: Buffer[] = []
    let bytes = 0
    try {
      for (const { digest } of chunks) {
        const piece = this.#readChunk(digest)
        pieces.push(piece)
        bytes += piece.length
        if (bytes >= HEAD_BYTES || dicomTags(Buffer.concat(pieces))?.studyInstanceUid !== undefined) break
      }
    } catch (error) {
      if (error instanceof PacsimileError) return undefined
      throw error
    }
    if (size === 0) return NO_DICOM
    const tags = dicomTags(Buffer.concat(pieces))
    return tags === undefined ? NO_DICOM : { isDicom: true, study: tags.studyInstanceUid }
  }
}
