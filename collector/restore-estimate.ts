/**
 * How long a restore will take, from what was just measured: a sample of its content is read and verified, and nothing is written.
 *
 * Invariant: an estimate says what it is from. It prevents a number that somebody made up from deciding whether a hospital waits or goes elsewhere.
 */
import type { ChunkRef, FileVersion } from '../shared/version.ts'
import type { HistorySource } from './history-source.ts'

export interface Estimate {
  readonly seconds: number
  /** `sample`: content was read for it; `bandwidth`: the limit that was asked for is slower than that; `nothing`: there is nothing to write. */
  readonly from: 'sample' | 'bandwidth' | 'nothing'
  readonly bytesPerSecond: number
  readonly sampledBytes: number
}

const SAMPLE_CHUNKS = 64
const SAMPLE_BYTES = 16 << 20

/** Undefined where the sample could not be read. */
export async function estimateOf(
  source: HistorySource,
  sample: ContentSample,
  bytesPerSecond: number | undefined,
): Promise<Estimate | undefined> {
  const chunks = sample.chunks()
  if (chunks.length === 0) return { seconds: 0, from: 'nothing', bytesPerSecond: 0, sampledBytes: 0 }
  const started = performance.now()
  let sampledBytes = 0
  for await (const result of source.chunks(chunks)) if ('bytes' in result) sampledBytes += result.bytes.length
  const measured = sampledBytes / Math.max(0.001, (performance.now() - started) / 1000)
  if (sampledBytes === 0) return undefined
  const rate = Math.min(measured, bytesPerSecond ?? Number.POSITIVE_INFINITY)
  return { seconds: sample.bytes / rate, from: rate < measured ? 'bandwidth' : 'sample', bytesPerSecond: rate, sampledBytes }
}

/** Chunks from all over some files, of which only a few are kept while the files are named one after the other. */
export class ContentSample {
  /** Of all files. */
  bytes = 0
  #files = 0
  /** Of each so many files with content one chunk is kept. */
  #stride = 1
  #kept: ChunkRef[] = []

  add({ size, chunks }: FileVersion): void {
    this.bytes += size
    if (chunks.length === 0) return
    const chunk = this.#files % this.#stride === 0 ? chunks[(this.#files * 7) % chunks.length] : undefined
    this.#files += 1
    if (chunk === undefined) return
    this.#kept.push(chunk)
    if (this.#kept.length < 2 * SAMPLE_CHUNKS) return
    this.#kept = this.#kept.filter((_, i) => i % 2 === 0)
    this.#stride *= 2
  }

  /** At most `SAMPLE_CHUNKS`, and no more once they have `SAMPLE_BYTES`. */
  chunks(): ChunkRef[] {
    const count = Math.min(SAMPLE_CHUNKS, this.#kept.length)
    const sample: ChunkRef[] = []
    let bytes = 0
    for (let i = 0; i < count && bytes < SAMPLE_BYTES; i++) {
      const chunk = this.#kept[Math.floor((i * this.#kept.length) / count)]
      if (chunk === undefined) break
      sample.push(chunk)
      bytes += chunk.length
    }
    return sample
  }
}
