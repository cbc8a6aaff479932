/**
 * What is kept of a copy over a restart, in DATA/copies/NAME.state.json: what is still to be removed from it.
 *
 * Invariant: a removal is noted for every copy before the file goes from the repository, and forgotten only when the copy lacks it. It
 * prevents a pruned file from living on in a copy that was away that day.
 */
import { z } from 'zod'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { readIfPresent, writeFileDurably } from '../shared/files.ts'
import { stateFile } from './copy-definition.ts'

const STATE = z.object({ removals: z.array(z.string()) })
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
