/**
 * The undo place of a restore in place: TARGET/.pacsimile-restore-ID with a note of what it is, the steps, and numbered slots.
 *
 * It lies in the target itself, for only there it is certain to be on the same filesystem, so that everything moves by rename(2): a volume is often the
 * root of a disk. Invariant: while a restore or an undo is not whole its note says so, and nobody else works on the same target. It prevents a half-changed
 * archive from passing for either of the two.
 *
 * Who owns the target can put any directory there under such a name: what is read and written is so through a descriptor of one that belongs to who runs this, and that
 * nobody else may write. It prevents steps that somebody else has made up from being done by root.
 */
import { closeSync, constants, fstatSync, mkdirSync, openSync, readdirSync, realpathSync, rmdirSync, statSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { asPacsimileError, errnoOf, PacsimileError } from '../shared/errors.ts'
import { readIfPresent, removeTemporaries, syncDirectory, writeFileDurably } from '../shared/files.ts'
import { childOf, type RelativePath } from '../shared/path.ts'
import { undoIdOf, undoPlaceOf } from '../shared/undo-place.ts'
import { decodeSteps, encodeSteps, type SwapStep, type SwapSummary } from './swap-steps.ts'

/** What is going on, or went on last. `staging`: nothing of the target was changed. */
const UNDO_STATES = ['staging', 'swapping', 'done', 'undoing', 'undone-but', 'forgetting'] as const
export type UndoState = (typeof UNDO_STATES)[number]

const NOTE = z.object({
  version: z.literal(1),
  id: z.string(),
  state: z.enum(UNDO_STATES),
  agent: z.string(),
  volume: z.string(),
  path: z.string(),
  epoch: z.number(),
  seq: z.number(),
  /** What else was asked for, in a form that compares. */
  terms: z.string(),
  momentMs: z.number(),
  startedMs: z.number(),
  endedMs: z.number().nullable(),
  /** Whether what was changed since had to make way for what was there before: it is in the slots then. */
  isForced: z.boolean().optional(),
  /** Of the undo that is under way, or was cut short: whether it is such a one. */
  isForcing: z.boolean().optional(),
  /** Of the target, before the place was made. */
  rootMtimeNs: z.string().regex(/^-?\d+$/),
})
export type UndoNote = z.output<typeof NOTE>

const SLOTS_PER_DIRECTORY = 1000

export class UndoPlace {
  readonly target: string
  #note: UndoNote

  private constructor(target: string, note: UndoNote) {
    this.target = target
    this.#note = note
  }

  /** A new one; nothing else of the target is changed. @throws io, space */
  static create(target: string, note: UndoNote): UndoPlace {
    const place = new UndoPlace(target, note)
    try {
      mkdirSync(place.directory, { mode: 0o700 })
      within(target, note.id, (directory) => mkdirSync(join(directory, 'slots'), { mode: 0o700 }))
      place.#write(note)
      syncDirectory(target)
    } catch (error) {
      throw asPacsimileError(error, `Making ${place.directory}`)
    }
    return place
  }

  /** Those of a target, oldest first, and the ids of what is none: left by a run that was killed before it had said what it was. @throws io, format-invalid */
  static in(target: string): { places: UndoPlace[]; halfMade: string[] } {
    let names: string[]
    try {
      names = readdirSync(target)
    } catch (error) {
      throw asPacsimileError(error, `Looking into ${target}`)
    }
    const places: UndoPlace[] = []
    const halfMade: string[] = []
    for (const id of names.flatMap((name) => undoIdOf(name) ?? [])) {
      const place = UndoPlace.find(target, id)
      if (place === undefined) halfMade.push(id)
      else places.push(place)
    }
    return { places: places.sort((a, b) => a.note.startedMs - b.note.startedMs), halfMade }
  }

  /** Undefined where there is none of who asks, or none that says what it is. @throws io, format-invalid */
  static find(target: string, id: string): UndoPlace | undefined {
    if (undoIdOf(undoPlaceOf(id)) === undefined) return undefined
    const bytes = within(target, id, (directory) => readIfPresent(join(directory, 'note.json')))
    if (bytes === undefined) return undefined
    try {
      return new UndoPlace(target, NOTE.parse(JSON.parse(bytes.toString('utf8'))))
    } catch (error) {
      throw new PacsimileError('format-invalid', `${join(target, undoPlaceOf(id))}/note.json is not what a restore left there`, {
        cause: error,
      })
    }
  }

  /** What a run has left that was killed before it had said what it was: it holds nothing yet, or it stays. */
  static removeHalfMade(target: string): void {
    for (const id of UndoPlace.in(target).halfMade) {
      try {
        within(target, id, (directory) => {
          removeTemporaries(directory)
          rmdirSync(join(directory, 'slots'))
        })
        rmdirSync(join(target, undoPlaceOf(id)))
      } catch (error) {
        if (!(error instanceof PacsimileError) && errnoOf(error) === undefined) throw error
      }
    }
  }

  get note(): UndoNote {
    return this.#note
  }

  get id(): string {
    return this.#note.id
  }

  /** Below the target. */
  get path(): RelativePath {
    return undoPlaceOf(this.id)
  }

  get directory(): string {
    return join(this.target, this.path)
  }

  slot(number: number): RelativePath {
    return childOf(this.shelf(number), `${number}`)
  }

  /** The directory of a slot. */
  shelf(number: number): RelativePath {
    return childOf(childOf(this.path, 'slots'), `${Math.floor(number / SLOTS_PER_DIRECTORY)}`)
  }

  /** Durably. @throws io, space */
  enter(state: UndoState, change: Partial<Pick<UndoNote, 'endedMs' | 'isForced' | 'isForcing'>> = {}): void {
    this.#write({ ...this.#note, ...change, state })
  }

  #write(note: UndoNote): void {
    this.#writeFile('note.json', `${JSON.stringify(note)}\n`)
    this.#note = note
  }

  /** Durably. @throws io, space */
  writeSteps(summary: SwapSummary, steps: readonly SwapStep[]): void {
    this.#writeFile('steps.jsonl', encodeSteps(summary, steps))
  }

  #writeFile(name: string, content: string | Buffer): void {
    const isThere = within(this.target, this.id, (directory) => {
      writeFileDurably(join(directory, name), content)
      return true
    })
    if (isThere === undefined) throw new PacsimileError('io', `${this.directory} is not there any more`)
  }

  /** @throws io, format-invalid */
  readSteps(): { summary: SwapSummary; steps: SwapStep[] } {
    const file = join(this.directory, 'steps.jsonl')
    const bytes = within(this.target, this.id, (directory) => readIfPresent(join(directory, 'steps.jsonl')))
    if (bytes === undefined) throw new PacsimileError('format-invalid', `${file} is missing`)
    return decodeSteps(bytes, file)
  }
}

const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const OTHERS_WRITE = 0o022

/** Undefined where there is no such place, or one that is not ours. `directory` is good until `act` returns. @throws io, and what `act` throws */
function within<Result>(target: string, id: string, act: (directory: string) => Result): Result | undefined {
  let fd: number
  try {
    fd = openSync(join(target, undoPlaceOf(id)), OPEN_DIRECTORY)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ELOOP' || errno === 'EACCES') return undefined
    throw asPacsimileError(error, `Opening ${join(target, undoPlaceOf(id))}`)
  }
  try {
    const { uid, mode } = fstatSync(fd)
    return uid === process.geteuid?.() && (mode & OTHERS_WRITE) === 0 ? act(`/proc/self/fd/${fd}`) : undefined
  } finally {
    closeSync(fd)
  }
}

/** Nobody else restores into this directory in place, takes such a restore back or forgets one, as long as it is held. */
export class TargetHold implements AsyncDisposable {
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  /** By an abstract socket, which ends with the process however that ends. @throws locked, not-found, io */
  static async take(target: string): Promise<TargetHold> {
    let name: string
    try {
      const { dev, ino } = statSync(realpathSync(target), { bigint: true })
      name = `\0pacsimile-restore-${dev}-${ino}`
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') throw new PacsimileError('not-found', `${target} does not exist`, { cause: error })
      throw asPacsimileError(error, `Looking at ${target}`)
    }
    const server = createServer((socket) => socket.destroy())
    server.unref()
    const answer = Promise.withResolvers<void>()
    server.once('error', answer.reject)
    server.listen({ path: name }, answer.resolve)
    try {
      await answer.promise
    } catch (error) {
      if (errnoOf(error) === 'EADDRINUSE')
        throw new PacsimileError('locked', `Another restore works on ${basename(target)} now`, { cause: error })
      throw asPacsimileError(error, `Holding ${target}`)
    }
    return new TargetHold(server)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
    })
  }
}
