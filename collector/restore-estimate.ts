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
  files: readonly FileVersion[],
  bytesPerSecond: number | undefined,
): Promise<Estimate | undefined> {
  const bytes = files.reduce((sum, { size }) => sum + size, 0)
  const sample = sampleOf(files)
  if (sample.length === 0) return { seconds: 0, from: 'nothing', bytesPerSecond: 0, sampledBytes: 0 }
  const started = performance.now()
  let sampledBytes = 0
  for await (const result of source.chunks(sample)) if ('bytes' in result) sampledBytes += result.bytes.length
  const measured = sampledBytes / Math.max(0.001, (performance.now() - started) / 1000)
  if (sampledBytes === 0) return undefined
  const rate = Math.min(measured, bytesPerSecond ?? Number.POSITIVE_INFINITY)
  return { seconds: bytes / rate, from: rate < measured ? 'bandwidth' : 'sample', bytesPerSecond: rate, sampledBytes }
}

/** Chunks from all over the files. */
function sampleOf(files: readonly FileVersion[]): ChunkRef[] {
  const withContent = files.filter(({ chunks }) => chunks.length > 0)
  const sample: ChunkRef[] = []
  let bytes = 0
  const stride = Math.max(1, Math.floor(withContent.length / SAMPLE_CHUNKS))
  for (let i = 0; i < withContent.length && sample.length < SAMPLE_CHUNKS && bytes < SAMPLE_BYTES; i += stride) {
    const chunks = withContent[i]?.chunks ?? []
    const chunk = chunks[(i * 7) % chunks.length]
    if (chunk === undefined) continue
    sample.push(chunk)
    bytes += chunk.length
  }
  return sample
}
