/**
 * The copies of a running collector: one copier for each definition in DATA/copies, and how many of them hold a commit.
 *
 * Invariant: whatever a copy does (hang, fail, fill up, vanish), it delays acknowledgements as far as `ackCopies` says, and nothing
 * else. It prevents a place that is there for safety from being what stops the archive.
 */
import { PacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { AckGate, reaches } from './ack-gate.ts'
import type { Reflected } from './catalog.ts'
import { type CopiedRepository, Copier, type CopyStatus } from './copier.ts'
import { beginCopy } from './copy-begin.ts'
import { addDefinition, definitionsIn, instanceOf, type NamedDefinition, openCopy, paceOf, removeDefinition } from './copy-definition.ts'
import { CopyStateFile } from './copy-state.ts'
import { nameOf } from './repository/copy.ts'
import type { FrameFileKind } from './repository/file-header.ts'

export interface CopiesParts {
  readonly dataDir: string
  readonly repository: CopiedRepository & { readonly id: string }
  readonly committed: () => Reflected
  /** The repository itself counts as one. */
  readonly ackCopies: number
  readonly log: Log
}

interface Kept {
  readonly copier: Copier
  readonly state: CopyStateFile
  readonly stop: AbortController
  readonly ended: Promise<void>
}

export class Copies implements AsyncDisposable {
  readonly gate: AckGate
  readonly #parts: CopiesParts
  readonly #kept = new Map<string, Kept>()

  private constructor(parts: CopiesParts) {
    this.#parts = parts
    this.gate = new AckGate((at) => this.#isHeld(at))
  }

  /** @throws config-invalid where there are fewer than `ackCopies` asks for, format-invalid */
  static open(parts: CopiesParts): Copies {
    const copies = new Copies(parts)
    const definitions = definitionsIn(parts.dataDir)
    requireEnough(parts.ackCopies, definitions.length)
    for (const named of definitions) copies.#start(named)
    return copies
  }

  #isHeld(at: Reflected): boolean {
    const { ackCopies } = this.#parts
    if (ackCopies <= 1) return true
    const holding = [...this.#kept.values()].filter(({ copier }) => copier.held !== undefined && reaches(copier.held, at))
    return 1 + holding.length >= ackCopies
  }

  #start({ name, definition }: NamedDefinition): void {
    const { dataDir, repository, committed, ackCopies, log } = this.#parts
    const state = new CopyStateFile(dataDir, name)
    const copier = new Copier({
      name,
      url: definition.url,
      open: (signal) => openCopy(definition, signal),
      writer: { repository: repository.id, instance: instanceOf(dataDir) },
      repository,
      committed,
      removals: state,
      log,
      ...paceOf(definition),
      ...(ackCopies > 1 ? { lingerMs: 0 } : {}),
      onHeld: () => this.gate.open(),
    })
    const stop = new AbortController()
    this.#kept.set(name, { copier, state, stop, ended: copier.run(stop.signal) })
  }

  /** Something is durable in the repository. */
  hint(): void {
    for (const { copier } of this.#kept.values()) copier.hint()
  }

  get status(): CopyStatus[] {
    return Array.from(this.#kept.values(), ({ copier }) => copier.status)
  }

  /** @throws already-exists, fenced, target-not-empty, io: then nothing is kept of it */
  async add(named: NamedDefinition): Promise<void> {
    const { dataDir, repository } = this.#parts
    if (this.#kept.has(named.name)) throw new PacsimileError('already-exists', `There is a copy ${named.name} already`)
    await beginCopy(dataDir, repository, named)
    addDefinition(dataDir, named)
    this.#start(named)
  }

  /** Stops copying there; what is there stays. @throws not-found, usage where `ackCopies` needs it */
  async remove(name: string): Promise<void> {
    const kept = this.#kept.get(name)
    if (kept === undefined) throw unknownCopy(name, [...this.#kept.keys()])
    requireSpare(this.#parts.ackCopies, this.#kept.size, name)
    this.#kept.delete(name)
    kept.stop.abort()
    await kept.ended
    removeDefinition(this.#parts.dataDir, name)
  }

  /**
   * Notes, durably, that a file is to be gone from every copy: to be called before it goes from the repository, whose readers do
   * not need it any more. Copies that are away lose it when they are back.
   */
  removeEverywhere(kind: FrameFileKind, number: number): void {
    for (const { state, copier } of this.#kept.values()) {
      state.add(nameOf(kind, number))
      copier.hint()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { stop } of this.#kept.values()) stop.abort()
    await Promise.all(Array.from(this.#kept.values(), ({ ended }) => ended))
  }
}

function requireEnough(ackCopies: number, copies: number): void {
  if (1 + copies >= ackCopies) return
  throw new PacsimileError(
    'config-invalid',
    `ackCopies = ${ackCopies} asks for ${ackCopies - 1} copies beside the repository, and there are ${copies}: \`pacsimile copy add\`, or another ackCopies`,
  )
}

/** @throws usage */
export function requireSpare(ackCopies: number, copies: number, name: string): void {
  if (copies >= ackCopies) return
  throw new PacsimileError('usage', `Acknowledgements wait for ${ackCopies} places (ackCopies): without ${name} there would be ${copies}`)
}

export function unknownCopy(name: string, known: readonly string[]): PacsimileError {
  return new PacsimileError('not-found', `There is no copy ${name}; there are: ${known.length === 0 ? 'none' : known.join(', ')}`)
}
