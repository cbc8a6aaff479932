/**
 * What is kept of a copy over a restart, in DATA/copies/NAME.state.json: what is still to be removed from it, and how far scrubbing is.
 *
 * Invariant: a removal is noted for every copy before the file goes from the repository, and forgotten only when the copy lacks it. It
 * prevents a pruned file from living on in a copy that was away that day.
 */
import { z } from 'zod'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { readIfPresent, writeFileDurably } from '../shared/files.ts'
import { stateFile } from './copy-definition.ts'

const SCRUB = z.object({
  startedMs: z.number(),
  /** The last file that was read in this round; '' before the first. */
  last: z.string(),
  nextMs: z.number(),
  lastRoundStartedMs: z.number().optional(),
  repaired: z.number().int().min(0),
  /** Found in this round, and not repaired. */
  damaged: z.number().int().min(0),
})
const STATE = z.object({ removals: z.array(z.string()), scrub: SCRUB.optional() })
type State = z.output<typeof STATE>

export class CopyStateFile {
  readonly #file: string
  #state: State

  /** @throws format-invalid */
  constructor(dataDir: string, name: string) {
    this.#file = stateFile(dataDir, name)
    this.#state = readState(this.#file)
  }

  get pending(): readonly string[] {
    return this.#state.removals
  }

  get scrub(): z.output<typeof SCRUB> {
    return this.#state.scrub ?? { startedMs: 0, last: '', nextMs: 0, repaired: 0, damaged: 0 }
  }

  /** A file was read. */
  scrubbed(last: string, { startedMs, isRepaired, isDamaged }: { startedMs: number; isRepaired: boolean; isDamaged: boolean }): void {
    const { scrub } = this
    const damaged = (scrub.last === '' ? 0 : scrub.damaged) + Number(isDamaged)
    this.#keep({ ...this.#state, scrub: { ...scrub, startedMs, last, repaired: scrub.repaired + Number(isRepaired), damaged } })
  }

  roundEnded(startedMs: number, nextMs: number): void {
    this.#keep({ ...this.#state, scrub: { ...this.scrub, last: '', lastRoundStartedMs: startedMs, nextMs } })
  }

  add(name: string): void {
    this.#keep({ ...this.#state, removals: [...this.#state.removals, name] })
  }

  done(name: string): void {
    this.#keep({ ...this.#state, removals: this.#state.removals.filter((pending) => pending !== name) })
  }

  #keep(state: State): void {
    writeFileDurably(this.#file, `${JSON.stringify(state)}\n`)
    this.#state = state
  }
}

function readState(file: string): State {
  const found = readIfPresent(file)
  if (found === undefined) return { removals: [] }
  try {
    return STATE.parse(JSON.parse(found.toString('utf8')))
  } catch (error) {
    throw new PacsimileError('format-invalid', `${file} is damaged: ${reasonOf(error)}`, { cause: error })
  }
}
