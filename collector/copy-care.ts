/**
 * Connections to copies beside those of their copiers: to verify one, and to fetch a file from one.
 *
 * Invariant: a file of the repository is replaced by a copy's only when that was read whole, under another name, and is a sealed one
 * of the same number. It prevents a heal that brings in other damage, or half a file.
 */
import { createSecretKey, type KeyObject } from 'node:crypto'
import { chmodSync, chownSync, existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { syncDirectory, TEMPORARY_PREFIX } from '../shared/files.ts'
import type { Reflected } from './catalog.ts'
import type { CopiedRepository } from './copier.ts'
import { instanceOf, type NamedDefinition, openCopy } from './copy-definition.ts'
import { fetchTo } from './copy-fetch.ts'
import { CopyVerifier, type WatchedCopier } from './copy-verify.ts'
import { type CopiedFile, nameOf } from './repository/copy.ts'
import type { FrameFileIdentity, FrameFileKind } from './repository/file-header.ts'
import type { Payload } from './repository/frame.ts'
import { FrameFile } from './repository/frame-file.ts'
import { DEFAULT_PARITY } from './repository/parity.ts'
import { ScrubThread } from './scrub-thread.ts'

export interface CopyCareParts {
  readonly dataDir: string
  readonly repository: CopiedRepository & {
    readonly id: string
    numbers(kind: FrameFileKind): number[]
    forget?(kind: FrameFileKind, number: number): void
  }
  readonly committed: () => Reflected
  readonly dataKey: Buffer
  readonly isDamaged: (path: string) => boolean
}

/** For what is fetched of a copy to be looked at. */
export function scratchOf(dataDir: string, name: string): string {
  return join(dataDir, 'copies', `${name}.fetched`)
}

/** Fetching one file. */
const FETCH_MS_MAX = 600_000

export class CopyCare {
  readonly #parts: CopyCareParts

  constructor(parts: CopyCareParts) {
    this.#parts = parts
  }

  /** `bytesPerSecond` of what is read; Infinity for as fast as it goes. */
  async withVerifier<Answer>(
    { name, definition }: NamedDefinition,
    { copier, bytesPerSecond }: { readonly copier: WatchedCopier; readonly bytesPerSecond: number },
    work: (verifier: CopyVerifier) => Promise<Answer>,
    signal: AbortSignal,
  ): Promise<Answer> {
    const { dataDir, repository, committed, dataKey, isDamaged } = this.#parts
    await using copy = await openCopy(definition, signal)
    await using thread = new ScrubThread(dataKey, { parity: DEFAULT_PARITY, bytesPerSecond })
    const writer = { repository: repository.id, instance: instanceOf(dataDir) }
    const scratch = scratchOf(dataDir, name)
    return await work(
      new CopyVerifier(copy, { name, repository, committed: committed(), dataKey, thread, writer, scratch, isDamaged, copier }),
    )
  }

  #isReplaceable(kind: FrameFileKind, number: number, held: CopiedFile): boolean {
    const extent = this.#parts.repository.extentOf(kind, number)
    // It is lost as a whole: whatever is there of it is better than nothing.
    if (extent === undefined) return true
    if (extent.state === 'sealed') return held.isFinished
    return extent.state === 'ended' && !held.isFinished && held.bytes >= extent.bytes
  }

  /** Chunks of a pack that the copy has whole, of those that are wanted by then. @throws io, space, not-found */
  async *chunks({ name, definition }: NamedDefinition, pack: number, names: ReadonlySet<Digest>): AsyncGenerator<Payload> {
    const { dataDir, repository, dataKey } = this.#parts
    await using copy = await openCopy(definition, AbortSignal.timeout(FETCH_MS_MAX))
    const [held] = await Array.fromAsync(copy.list(nameOf('pack', pack)))
    if (held === undefined) return
    const fetched = join(scratchOf(dataDir, name), `pack-${pack}-healing`)
    mkdirSync(dirname(fetched), { recursive: true, mode: 0o700 })
    try {
      rmSync(fetched, { force: true })
      await fetchTo(copy, held, fetched)
      yield* wholeChunks(fetched, { kind: 'pack', number: pack, repository: repository.id }, createSecretKey(dataKey), names)
    } finally {
      rmSync(fetched, { force: true })
    }
  }

  /**
   * Puts the copy's file in the place of the repository's, to which nothing is appended any more; false where the copy does not have it, or
   * not whole.
   * @throws io, space, not-found
   */
  async heal({ definition }: NamedDefinition, kind: FrameFileKind, number: number): Promise<boolean> {
    const { repository, dataKey } = this.#parts
    const name = nameOf(kind, number)
    const path = repository.pathOf(kind, number)
    const temporary = join(dirname(path), `${TEMPORARY_PREFIX}${basename(path)}-healed`)
    await using copy = await openCopy(definition, AbortSignal.timeout(FETCH_MS_MAX))
    const [held] = await Array.fromAsync(copy.list(name))
    if (held === undefined || !this.#isReplaceable(kind, number, held)) return false
    await using thread = new ScrubThread(dataKey, { parity: DEFAULT_PARITY, bytesPerSecond: Number.POSITIVE_INFINITY })
    try {
      rmSync(temporary, { force: true })
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      await fetchTo(copy, held, temporary)
      const { left, protection } = await thread.scrub(temporary, { kind, number, repository: repository.id }, false)
      if (left.length > 0 || (protection === 'open') === held.isFinished) return false
      const identity = { kind, number, repository: repository.id }
      if (!held.isFinished && !hasFramesOf(path, temporary, identity, createSecretKey(dataKey))) return false
      // Whoever repairs may be root, and the collector is not.
      const { uid, gid } = statSync(repository.directory)
      chownSync(temporary, uid, gid)
      chmodSync(temporary, held.isFinished ? 0o400 : 0o600)
      renameSync(temporary, path)
      syncDirectory(dirname(path))
      // What was opened before is the damaged file still.
      repository.forget?.(kind, number)
      return true
    } catch (error) {
      throw asPacsimileError(error, `Fetching ${name} from ${copy.url}`)
    } finally {
      rmSync(temporary, { force: true })
    }
  }
}

/** Whether whatever is whole of one file is in the other: then that is the same history, and goes on where the first is damaged. */
function hasFramesOf(path: string, other: string, identity: FrameFileIdentity, dataKey: KeyObject): boolean {
  const there = new Set(framesIn(other, identity, dataKey))
  return framesIn(path, identity, dataKey).every((frame) => there.has(frame))
}

function framesIn(path: string, identity: FrameFileIdentity, dataKey: KeyObject): string[] {
  const file = existsSync(path) ? orDamaged(() => FrameFile.open(path, identity, dataKey)) : undefined
  if (file === undefined) return []
  try {
    return [...file.scan()].flatMap((found) => (found.kind === 'frame' ? [`${found.type} ${found.offset} ${found.digest}`] : []))
  } finally {
    file.close()
  }
}

/** Nothing where not even its header is whole. */
function* wholeChunks(path: string, identity: FrameFileIdentity, dataKey: KeyObject, names: ReadonlySet<Digest>): Generator<Payload> {
  const file = orDamaged(() => FrameFile.open(path, identity, dataKey))
  if (file === undefined) return
  try {
    for (const frame of file.scan()) {
      if (frame.kind !== 'frame' || frame.type !== 'chunk' || !names.has(frame.digest)) continue
      const payload = orDamaged(() => file.readPayload(frame.offset, frame.storedLength, frame.digest))
      if (payload !== undefined) yield payload
    }
  } finally {
    file.close()
  }
}

function orDamaged<Read>(read: () => Read): Read | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'damage') return undefined
    throw error
  }
}
