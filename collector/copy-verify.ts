/**
 * Verifies a copy: every byte of it is read, and compared with its own checksums and digests and with the repository.
 *
 * Invariant: what is called damaged is damaged by its own word, and is put right only from a file of the repository that was read
 * whole just before; a file that is whole and another one is never touched. It prevents a repair that spreads damage, or that
 * decides between two histories.
 */
import { createSecretKey, randomBytes } from 'node:crypto'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { PacsimileError } from '../shared/errors.ts'
import type { Damage, Reflected } from './catalog.ts'
import type { CopiedRepository } from './copier.ts'
import { fetchTo } from './copy-fetch.ts'
import type { Holding } from './copy-inventory.ts'
import { matchOf } from './copy-match.ts'
import { COPIED_KINDS, type CopiedFile, type Copy, commonBytes, copiedSource, fileOf, nameOf, prefixOf } from './repository/copy.ts'
import { Lease, type Writer } from './repository/copy-lease.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import { FrameFile } from './repository/frame-file.ts'
import { LocalFile } from './repository/local-file.ts'
import { framesOf, type ScrubbedFile } from './scrub-file.ts'
import type { ScrubThread } from './scrub-thread.ts'

/** `other`: whole, but not what the repository has; `short`: it ends too early. */
export type FindingKind = 'missing' | 'short' | 'damaged' | 'other'

export interface CopyFinding {
  /** As it is named in the repository. */
  readonly file: string
  readonly kind: FindingKind
  readonly offset: number
  readonly reason: string
  /** It is right again, or will be when the copier comes to it. */
  readonly isRepaired: boolean
}

export interface CopyVerifyReport {
  readonly copy: string
  readonly url: string
  readonly files: number
  readonly bytes: number
  readonly seconds: number
  readonly findings: readonly CopyFinding[]
  /** What the copy has, and the repository has not, or not whole. */
  readonly better: readonly { readonly file: string; readonly reason: string }[]
}

export interface CopyVerifyParts {
  readonly name: string
  readonly repository: CopiedRepository & { readonly id: string; numbers(kind: FrameFileKind): number[] }
  readonly committed: Reflected
  readonly dataKey: Buffer
  readonly thread: ScrubThread
  readonly writer: Writer
  /** For what is fetched. */
  readonly scratch: string
  /** Whether a file of the repository is known to be damaged. */
  readonly isDamaged: (path: string) => boolean
  readonly copier: WatchedCopier
}

/** Of the copier that writes the copy meanwhile. */
export interface WatchedCopier {
  /** A file is to be written anew. */
  redo(kind: FrameFileKind, number: number): void
  /** What the copy is known to hold of a file: the rest is on its way. 'all' where nobody writes: then of what is sealed, everything. */
  holding(kind: FrameFileKind, number: number): Holding | undefined | 'all'
}

interface Judged {
  readonly findings: readonly CopyFinding[]
  readonly bytes: number
  readonly better?: string
}

interface Difference extends Pick<CopyFinding, 'kind' | 'offset' | 'reason'> {
  /** The repository is damaged where the copy is whole. */
  readonly isRotten: boolean
}

/** One file of a copy, or of the repository, or of both. */
export interface VerifiedPlace {
  readonly kind: FrameFileKind
  readonly number: number
  readonly held: CopiedFile | undefined
}

interface HeldPlace extends VerifiedPlace {
  readonly held: CopiedFile
}

const WHOLE: Judged = { findings: [], bytes: 0 }
/** At a file that is another one each time when it has been read. */
const LOOKS_MAX = 5

export class CopyVerifier {
  readonly #copy: Copy
  readonly #parts: CopyVerifyParts

  constructor(copy: Copy, parts: CopyVerifyParts) {
    this.#copy = copy
    this.#parts = parts
  }

  /** All of it. @throws io, fenced */
  async verify(
    repairs: boolean,
    signal: AbortSignal,
    onProgress: (bytes: number, totalBytes: number) => void = () => {},
  ): Promise<CopyVerifyReport> {
    const startedMs = performance.now()
    const places = await this.places(signal)
    const totalBytes = places.reduce((sum, { held }) => sum + (held?.bytes ?? 0), 0)
    const findings: CopyFinding[] = []
    const better: { file: string; reason: string }[] = []
    let bytes = 0
    for (const place of places) {
      signal.throwIfAborted()
      const judged = await this.verifyFile(place, repairs)
      findings.push(...judged.findings)
      if (judged.better !== undefined) better.push({ file: nameOf(place.kind, place.number), reason: judged.better })
      bytes += judged.bytes
      onProgress(bytes, totalBytes)
    }
    const files = places.filter(({ held }) => held !== undefined).length
    const seconds = (performance.now() - startedMs) / 1000
    return { copy: this.#parts.name, url: this.#copy.url, files, bytes, seconds, findings, better }
  }

  /** Every file that one of the two has, and that is to be there. */
  async places(signal: AbortSignal): Promise<VerifiedPlace[]> {
    const { repository, committed } = this.#parts
    const places: VerifiedPlace[] = []
    for (const kind of COPIED_KINDS) {
      const held = new Map<number, CopiedFile>()
      for await (const file of this.#copy.list(prefixOf(kind), signal)) {
        const number = fileOf(file.name)?.number
        if (number !== undefined) held.set(number, file)
      }
      const end = kind === 'pack' ? committed.packs.file : committed.segments.file
      const numbers = new Set([...repository.numbers(kind).filter((number) => number <= end), ...held.keys()])
      for (const number of [...numbers].sort((a, b) => a - b)) places.push({ kind, number, held: held.get(number) })
    }
    return places
  }

  /** @throws io, fenced */
  async verifyFile({ kind, number }: VerifiedPlace, repairs: boolean): Promise<Judged> {
    for (let looks = 1; ; looks++) {
      const known = this.#parts.copier.holding(kind, number)
      // It may have grown, or come, or gone, since all was listed.
      const held = await this.#held(kind, number)
      if (held === undefined) return this.#missing(kind, number, known, repairs)
      try {
        return await this.#verifyHeld({ kind, number, held }, known, repairs)
      } catch (error) {
        // The copier writes it anew, or it was pruned, while it was read: that is no failure of the copy.
        const isGone = error instanceof PacsimileError && (error.code === 'io' || error.code === 'not-found')
        if (!isGone || looks === LOOKS_MAX || isSameFile(held, await this.#held(kind, number))) throw error
      }
    }
  }

  async #held(kind: FrameFileKind, number: number): Promise<CopiedFile | undefined> {
    const [held] = await Array.fromAsync(this.#copy.list(nameOf(kind, number)))
    return held
  }

  async #verifyHeld({ kind, number, held }: HeldPlace, known: Holding | undefined | 'all', repairs: boolean): Promise<Judged> {
    const durable = known === 'all' || held.isFinished ? held.bytes : Math.min(held.bytes, known?.bytes ?? 0)
    const path = this.#copy.localPath?.(held.name)
    if (path !== undefined) return this.#judge({ kind, number, held }, durable, path, repairs)
    const scratch = join(this.#parts.scratch, `${kind}-${number}-${randomBytes(6).toString('hex')}`)
    mkdirSync(this.#parts.scratch, { recursive: true, mode: 0o700 })
    try {
      await fetchTo(this.#copy, held, scratch)
      return await this.#judge({ kind, number, held }, durable, scratch, repairs)
    } finally {
      rmSync(scratch, { force: true })
    }
  }

  /** What the copier has not come to yet is not missing. */
  #missing(kind: FrameFileKind, number: number, known: Holding | undefined | 'all', repairs: boolean): Judged {
    const extent = this.#parts.repository.extentOf(kind, number)
    const isExpected = known === 'all' ? extent?.state === 'sealed' : known !== undefined && known.bytes > 0
    if (extent === undefined || !isExpected) return WHOLE
    if (repairs) this.#parts.copier.redo(kind, number)
    const file = nameOf(kind, number)
    return { findings: [{ file, kind: 'missing', offset: 0, reason: 'the copy does not have it', isRepaired: repairs }], bytes: 0 }
  }

  async #judge({ kind, number, held }: HeldPlace, durable: number, path: string, repairs: boolean): Promise<Judged> {
    const { repository, thread, isDamaged } = this.#parts
    const own = repository.pathOf(kind, number)
    const scrubbed = await thread.scrub(path, { kind, number, repository: repository.id }, false)
    const { bytes } = scrubbed
    const extent = repository.extentOf(kind, number)
    // What lies behind that is being written.
    const left = scrubbed.left.filter(({ offset }) => offset < durable || held.isFinished)
    if (left.length > 0) {
      const isRepaired = repairs && extent !== undefined && (await this.#repair(kind, number, held))
      return { findings: left.map((damage) => findingOf(held, damage, isRepaired)), bytes }
    }
    if (extent === undefined) return { findings: [], bytes, better: 'the repository does not have it' }
    if (isDamaged(own)) return { findings: [], bytes, better: 'it is damaged in the repository' }
    const difference = await this.#difference(kind, number, { ...held, bytes: durable }, scrubbed)
    if (difference === undefined) {
      // What is damaged or another one is not worth keeping for longer.
      if (repairs && held.isFinished) await this.#copy.renew?.(held.name)
      return { findings: [], bytes }
    }
    // Which of the two is right, the repository's own checksums say first.
    const read = await thread.scrub(own, { kind, number, repository: repository.id }, false)
    if (read.left.length > 0 || difference.isRotten) return { findings: [], bytes, better: 'it is damaged in the repository' }
    const isRepaired = repairs && difference.kind === 'damaged'
    if (isRepaired) this.#parts.copier.redo(kind, number)
    const { kind: how, offset, reason } = difference
    return { findings: [{ file: held.name, kind: how, offset, reason, isRepaired }], bytes }
  }

  /** How a file that is whole is not what the repository has. */
  async #difference(kind: FrameFileKind, number: number, held: CopiedFile, { frames }: ScrubbedFile): Promise<Difference | undefined> {
    const { repository, dataKey } = this.#parts
    // What ends a file may have been made anew by a repair; what is in it is the same.
    if (frames !== undefined && frames === ownFrames(repository, kind, number, dataKey)) return undefined
    await using own = await LocalFile.open(repository.pathOf(kind, number))
    const copied = copiedSource(this.#copy, held.name, held.bytes)
    let isRotten = false
    if (!held.isFinished) {
      const match = await matchOf(copied, own)
      if (match.kind === 'same') return undefined
      // At the end of a file that grows it looks like an append that was cut short.
      if (match.kind === 'torn') return { kind: 'damaged', offset: match.from, reason: 'it is not what was written', isRotten: false }
      isRotten = match.kind === 'rotten'
    }
    const same = await commonBytes(copied, own)
    if (same === held.bytes && held.bytes === own.bytes) return undefined
    const place = { offset: same, isRotten }
    if (same === held.bytes) return { kind: 'short', ...place, reason: `it ends here; the repository has ${own.bytes} bytes` }
    return { kind: 'other', ...place, reason: 'it is whole, and differs from the repository from here on' }
  }

  /** From the repository's own file, if that is whole. */
  async #repair(kind: FrameFileKind, number: number, held: CopiedFile): Promise<boolean> {
    const { repository, thread, writer, copier } = this.#parts
    const own = repository.pathOf(kind, number)
    const read = await thread.scrub(own, { kind, number, repository: repository.id }, false)
    if (read.left.length > 0) return false
    if (!held.isFinished || repository.extentOf(kind, number)?.state !== 'sealed') {
      copier.redo(kind, number)
      return true
    }
    await using source = await LocalFile.open(own)
    await Lease.require(this.#copy, writer)
    await this.#copy.replace(held.name, source)
    return true
  }
}

function findingOf({ name }: CopiedFile, { offset, reason }: Damage, isRepaired: boolean): CopyFinding {
  return { file: name, kind: 'damaged', offset, reason, isRepaired }
}

/** As far as a listing tells. */
function isSameFile(held: CopiedFile, now: CopiedFile | undefined): boolean {
  return now !== undefined && now.bytes === held.bytes && now.isFinished === held.isFinished && now.modifiedMs === held.modifiedMs
}

/** Undefined where the file is not sealed, or not whole enough to tell. */
function ownFrames(repository: CopyVerifyParts['repository'], kind: FrameFileKind, number: number, dataKey: Buffer): string | undefined {
  let file: FrameFile
  try {
    file = FrameFile.open(repository.pathOf(kind, number), { kind, number, repository: repository.id }, createSecretKey(dataKey))
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'damage') return undefined
    throw error
  }
  try {
    return framesOf(file)
  } finally {
    file.close()
  }
}
