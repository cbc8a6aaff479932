/**
 * How the pixels lie in a file of which a chunk is read again: known from its head, which is read once for a run of chunks.
 *
 * Invariant: it is advice for compression only. It prevents a file that changes between two chunks from being anything worse
 * than badly compressed.
 */
import { fstatSync, readSync } from 'node:fs'
import { DICOM_HEAD_BYTES, isDicom, type PixelData, pixelData, samplesFrom } from '../shared/dicom.ts'
import type { Samples } from '../shared/sample-filter.ts'

/** Enough to tell a DICOM file. */
const PREFIX_BYTES = 132

export class PixelLayouts {
  #head = Buffer.alloc(0)
  #file = ''
  #pixels: PixelData | undefined

  /** What lies in a piece of the file from `offset` on. */
  samplesAt(fd: number, offset: number): Samples | undefined {
    const { dev, ino, size, mtimeNs } = fstatSync(fd, { bigint: true })
    const file = `${dev} ${ino} ${size} ${mtimeNs}`
    if (file !== this.#file) {
      this.#pixels = this.#read(fd, Number(size))
      this.#file = file
    }
    return this.#pixels && samplesFrom(this.#pixels, offset)
  }

  #read(fd: number, size: number): PixelData | undefined {
    if (this.#head.length === 0) this.#head = Buffer.allocUnsafeSlow(DICOM_HEAD_BYTES)
    const prefix = this.#head.subarray(0, readSync(fd, this.#head, 0, PREFIX_BYTES, 0))
    return isDicom(prefix) ? pixelData(this.#head.subarray(0, readSync(fd, this.#head, 0, DICOM_HEAD_BYTES, 0)), size) : undefined
  }
}
