/**
 * When the spool will be full, if things go on as in the last minutes. Pure: times are passed in.
 *
 * Invariant: no forecast without growth, and none from less than half a minute. It prevents an alarm for every burst of
 * captures while the collector is connected, and silence while an absent one fills the disk.
 */

/** Samples are kept for this long; */
const WINDOW_MS = 5 * 60_000
/** one is taken at most this often; */
const SAMPLE_MS = 5000
/** and they must span this long to say anything. */
const SPAN_MS_MIN = 30_000

interface Sample {
  readonly atMs: number
  readonly bytes: number
  readonly roomBytes: number
}

export class Forecast {
  #samples: Sample[] = []

  /** Whether it is time to measure again. */
  isDue(atMs: number): boolean {
    const last = this.#samples.at(-1)
    return last === undefined || atMs - last.atMs >= SAMPLE_MS
  }

  /** `bytes` is what the spool holds, `roomBytes` what it may still take. */
  note(atMs: number, bytes: number, roomBytes: number): void {
    if (!this.isDue(atMs)) return
    this.#samples = [...this.#samples.filter((sample) => sample.atMs >= atMs - WINDOW_MS), { atMs, bytes, roomBytes }]
  }

  /** Undefined while the spool does not grow. */
  get fullInSeconds(): number | undefined {
    const [first] = this.#samples
    const last = this.#samples.at(-1)
    if (first === undefined || last === undefined || last.atMs - first.atMs < SPAN_MS_MIN || last.bytes <= first.bytes) return undefined
    // Others may take the room of the filesystem faster than the spool grows.
    const takenBytes = Math.max(last.bytes - first.bytes, first.roomBytes - last.roomBytes)
    return Math.max(0, Math.round((last.roomBytes / takenBytes) * ((last.atMs - first.atMs) / 1000)))
  }
}
