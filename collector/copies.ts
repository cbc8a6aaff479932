/**
 * The copies of a running collector: one copier for each definition in DATA/copies, and how many of them hold a commit.
 *
 * Invariant: whatever a copy does (hang, fail, fill up, vanish), it delays acknowledgements as far as `ackCopies` says, and nothing
 * else. It prevents a place that is there for safety from being what stops the archive.
 */
import { rmSync } from 'node:fs'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { AckGate, reaches } from './ack-gate.ts'
import type { Reflected } from './catalog.ts'
import { Copier, type CopyReport } from './copier.ts'
import { beginCopy } from './copy-begin.ts'
import { CopyCare, type CopyCareParts, scratchOf } from './copy-care.ts'
import { addDefinition, definitionsIn, instanceOf, type NamedDefinition, openCopy, paceOf, removeDefinition } from './copy-definition.ts'
import { scrubCopy } from './copy-scrub.ts'
import { CopyStateFile } from './copy-state.ts'
import type { CopyVerifyReport } from './copy-verify.ts'
import { nameOf } from './repository/copy.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import type { Payload } from './repository/frame.ts'

export interface CopiesParts {
  readonly dataDir: string
  readonly repository: CopyCareParts['repository']
  readonly committed: () => Reflected
  /** The repository itself counts as one. */
  readonly ackCopies: number
  readonly dataKey: Buffer
  /** Whether a file of the repository is known to be damaged. */
  readonly isDamaged: (path: string) => boolean
  /** Undefined: copies are not re-read. */
  readonly scrub: { readonly roundMs: number; readonly bytesPerSecond: number } | undefined
  readonly log: Log
}

interface Kept {
  readonly named: NamedDefinition
  readonly copier: Copier
  readonly state: CopyStateFile
  readonly stop: AbortController
  readonly ended: Promise<unknown>
}

export class Copies implements AsyncDisposable {
  readonly gate: AckGate
  readonly #parts: CopiesParts
  readonly #care: CopyCare
  readonly #kept = new Map<string, Kept>()

  private constructor(parts: CopiesParts) {
    this.#parts = parts
    this.#care = new CopyCare(parts)
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

  #start(named: NamedDefinition): void {
    const { name, definition } = named
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
    // What a process that was killed has left of a file that it was verifying.
    rmSync(scratchOf(dataDir, name), { recursive: true, force: true })
    const ended = Promise.all([copier.run(stop.signal), this.#scrub(named, copier, state, stop.signal)])
    this.#kept.set(name, { named, copier, state, stop, ended })
  }

  async #scrub(named: NamedDefinition, copier: Copier, state: CopyStateFile, signal: AbortSignal): Promise<void> {
    const { scrub, log } = this.#parts
    if (scrub === undefined) return
    const { roundMs, bytesPerSecond } = scrub
    const scrubbing = scrubCopy(
      {
        name: named.name,
        state,
        roundMs,
        isReachable: () => copier.isReachable,
        withVerifier: (work, until) => this.#care.withVerifier(named, { copier, bytesPerSecond }, work, until),
        log,
      },
      signal,
    )
    // A place that hangs is left behind.
    await Promise.race([scrubbing, aborted(signal)])
  }

  /** Something is durable in the repository. */
  hint(): void {
    for (const { copier } of this.#kept.values()) copier.hint()
  }

  get status(): CopyReport[] {
    return Array.from(this.#kept.values(), ({ copier, state: { scrub } }) => ({
      ...copier.status,
      verifiedSinceMs: scrub.lastRoundStartedMs,
      repaired: scrub.repaired,
      damaged: scrub.damaged,
    }))
  }

  /** Reads all of a copy. @throws not-found, io, fenced */
  async verify(name: string, repairs: boolean, signal: AbortSignal): Promise<CopyVerifyReport> {
    const kept = this.#kept.get(name)
    if (kept === undefined) throw unknownCopy(name, [...this.#kept.keys()])
    const { copier, named } = kept
    const how = { copier, bytesPerSecond: Number.POSITIVE_INFINITY }
    return this.#care.withVerifier(named, how, (verifier) => verifier.verify(repairs, signal), signal)
  }

  /** Puts a whole file of a copy in the place of one of the repository that is damaged. @returns the copy's name */
  async heal(kind: FrameFileKind, number: number): Promise<string | undefined> {
    const { log } = this.#parts
    for (const [name, { copier, named }] of this.#kept) {
      if (!copier.isReachable) continue
      try {
        if (await this.#care.heal(named, kind, number)) return name
      } catch (error) {
        const { code, message } = asPacsimileError(error, 'Healing from a copy')
        log.warn('a damaged file cannot be had from a copy', { copy: name, code, reason: message })
      }
    }
    return undefined
  }

  /** Chunks of a pack that copies have whole, of those that are wanted by then. */
  async *chunks(pack: number, names: ReadonlySet<Digest>): AsyncGenerator<{ readonly copy: string; readonly payload: Payload }> {
    for (const [copy, { copier, named }] of this.#kept) {
      if (!copier.isReachable || names.size === 0) continue
      try {
        for await (const payload of this.#care.chunks(named, pack, names)) yield { copy, payload }
      } catch (error) {
        const { code, message } = asPacsimileError(error, 'Healing from a copy')
        this.#parts.log.warn('content of a damaged file cannot be had from a copy', { copy, code, reason: message })
      }
    }
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
   * Notes, durably, that a file is to be gone from every copy: to be called before it is removed from the repository. Copies lose it
   * after the repository has, those that are away when they are back.
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

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
