/**
 * A LevelDB database of the agent: byte-string keys in byte order, Buffer values. The agent's only door to the library.
 *
 * Order at first creation: made whole in a temporary directory, then renamed; a power cut during LevelDB's own first
 * creation can leave a database that never opens again.
 * Invariant: after any failed write nothing is written before it was reopened, because LevelDB acknowledges and loses what
 * is written after an error; and only what LevelDB itself calls corrupt is called damage, never what the disk refuses. It
 * prevents a full disk from turning into silently missing records, and a read-only one into a journal that is given up.
 */
import { randomBytes } from 'node:crypto'
import { accessSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import type { ByteString } from '../shared/bytes.ts'
import { errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { isPresent, syncDirectory, TEMPORARY_PREFIX } from '../shared/files.ts'

export type Write =
  | { readonly type: 'put'; readonly key: ByteString; readonly value: Buffer }
  | { readonly type: 'del'; readonly key: ByteString }

/** Keys from `gte` on (or after `gt`) and below `lt`. */
export interface KeyRange {
  readonly gte?: ByteString
  readonly gt?: ByteString
  readonly lt: ByteString
}

const MiB = 1024 * 1024

const BYTES = {
  name: 'latin1',
  format: 'buffer',
  encode: (key: ByteString): Buffer => Buffer.from(key, 'latin1'),
  decode: (bytes: Buffer): ByteString => bytes.toString('latin1'),
} as const

/**
 * What LevelDB may take of a host whose memory is somebody else's: of tables, which it maps, the fewest that it allows open at a time, where it would open
 * a thousand; of blocks read and of records not yet in a table, a quarter of what it would keep. What is read here is read in order, or where
 * something was read a moment ago.
 */
const MEMORY = { maxOpenFiles: 74, maxFileSize: MiB, cacheSize: 2 * MiB, writeBufferSize: 2 * MiB } as const

/** Frees space that was kept for opening a database on a full disk; false when there is none to free. */
export type MakeRoom = () => boolean

export interface ScanPage {
  readonly entries: readonly [Buffer, Buffer][]
  readonly isLast: boolean
}

/** A page for a scan holds one entry more than these bytes at most. */
const SCAN_PAGE_BYTES = 512 * 1024
/** Entries fetched by one call. */
const PAGE_ENTRIES = 512

export class Database {
  readonly #level: ClassicLevel<ByteString, Buffer>
  readonly #makeRoom: MakeRoom
  #failure: PacsimileError | undefined

  private constructor(level: ClassicLevel<ByteString, Buffer>, makeRoom: MakeRoom) {
    this.#level = level
    this.#makeRoom = makeRoom
  }

  /** @throws locked, damage, space, io */
  static open(directory: string, makeRoom: MakeRoom = () => false): Promise<Database> {
    checkReachable(directory)
    return again(makeRoom, async () => new Database(await Database.#begin(directory, false), makeRoom))
  }

  /** Other threads of this process may `join`. A database that may be reopened after a failed write must not be shared. */
  static openShared(directory: string, makeRoom: MakeRoom = () => false): Promise<Database> {
    checkReachable(directory)
    return again(makeRoom, async () => new Database(await Database.#begin(directory, true), makeRoom))
  }

  /** A second opening, in another thread, of what this process holds open. @throws damage */
  static async join(directory: string): Promise<Database> {
    return new Database(await openLevel(directory, true), () => false)
  }

  static async #begin(directory: string, isShared: boolean): Promise<ClassicLevel<ByteString, Buffer>> {
    removeTemporary(directory)
    if (!isPresent(directory)) {
      const temporary = join(dirname(directory), `${TEMPORARY_PREFIX}${basename(directory)}-${randomBytes(6).toString('hex')}`)
      const made = await openLevel(temporary, false)
      await made.close()
      renameSync(temporary, directory)
      syncDirectory(dirname(directory))
    }
    return openLevel(directory, isShared)
  }

  /** Why nothing can be written until it is reopened. */
  get failure(): PacsimileError | undefined {
    return this.#failure
  }

  /** Closes and opens anew: what is readable then is what is on disk. @throws damage, space, io */
  async reopen(): Promise<void> {
    await this.#level.close()
    await again(this.#makeRoom, () => openOrExplain(this.#level))
    this.#failure = undefined
  }

  get(key: ByteString): Promise<Buffer | undefined> {
    return this.#level.get(key)
  }

  /** At once, without leaving the thread: only for threads that have nothing else to do meanwhile. */
  getNow(key: ByteString): Buffer | undefined {
    return this.#level.getSync(key)
  }

  getMany(keys: ByteString[]): Promise<(Buffer | undefined)[]> {
    return this.#level.getMany(keys)
  }

  /** All or nothing; with `sync` durable when it resolves. @throws space, io */
  write(writes: Write[], options: { readonly sync: boolean }): Promise<void> {
    return this.#change(() => this.#level.batch(writes, options))
  }

  async #change(change: () => Promise<void>): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    try {
      await change()
    } catch (error) {
      const reason = reasonOf(error)
      this.#failure = new PacsimileError(codeOf(reason), `Writing ${this.#level.location}: ${reason}`, { cause: error })
      throw this.#failure
    }
  }

  /** The first `limit` entries, in key order, as they are now; fewer only where the range holds no more. */
  async page(range: KeyRange, limit = PAGE_ENTRIES): Promise<[ByteString, Buffer][]> {
    const iterator = this.#level.iterator({ ...range, limit })
    try {
      const page: [ByteString, Buffer][] = []
      // One call stops at a number of bytes as well as at a number of entries: only an empty answer is the end.
      for (let more = await iterator.nextv(limit); more.length > 0; more = await iterator.nextv(limit)) {
        page.push(...more)
        if (page.length === limit) break
      }
      return page
    } finally {
      await iterator.close()
    }
  }

  /**
   * The same for scans: keys as they are stored, and a page ends early when it has many bytes. `isLast`: the range holds no more.
   */
  async scanPage(range: { readonly gte: ByteString; readonly lt: ByteString }, limit: number): Promise<ScanPage> {
    const options = { keyEncoding: 'buffer', limit, highWaterMarkBytes: SCAN_PAGE_BYTES } as const
    const iterator = this.#level.iterator<Buffer, Buffer>({ ...options, gte: BYTES.encode(range.gte), lt: BYTES.encode(range.lt) })
    try {
      const entries = await iterator.nextv(limit)
      return { entries, isLast: entries.length === 0 }
    } finally {
      await iterator.close()
    }
  }

  /** The values of a page, of which the keys say nothing new. Empty where the range holds no more. */
  async scanValues(range: { readonly gte: ByteString; readonly lt: ByteString }, limit: number): Promise<readonly Buffer[]> {
    const options = { keys: false, keyEncoding: 'buffer', limit, highWaterMarkBytes: SCAN_PAGE_BYTES } as const
    const iterator = this.#level.iterator<Buffer, Buffer>({ ...options, gte: BYTES.encode(range.gte), lt: BYTES.encode(range.lt) })
    try {
      return (await iterator.nextv(limit)).map(([, value]) => value)
    } finally {
      await iterator.close()
    }
  }

  /** All entries, page by page; each page is as it is when it is asked for. */
  async *pages(range: KeyRange): AsyncGenerator<[ByteString, Buffer][], void> {
    let page = await this.page(range)
    while (page.length > 0) {
      yield page
      const [last] = page.at(-1) ?? []
      if (last === undefined || page.length < PAGE_ENTRIES) return
      page = await this.page({ gt: last, lt: range.lt })
    }
  }

  /** The entry with the greatest key of the range. */
  async last(range: KeyRange): Promise<[ByteString, Buffer] | undefined> {
    const iterator = this.#level.iterator({ ...range, reverse: true, limit: 1 })
    try {
      return (await iterator.nextv(1))[0]
    } finally {
      await iterator.close()
    }
  }

  /** @throws space, io */
  clear(range: KeyRange): Promise<void> {
    return this.#change(() => this.#level.clear(range))
  }

  close(): Promise<void> {
    return this.#level.close()
  }
}

/** LevelDB asks with access(2), which leaves out capabilities: what it cannot see it would begin anew, over what is there. */
function checkReachable(directory: string): void {
  try {
    accessSync(dirname(directory))
  } catch (error) {
    throw new PacsimileError(
      'io',
      `Opening ${directory}: this user may not search the directories above it without its capabilities, which LevelDB does not use; allow it (chmod o+x)`,
      { cause: error },
    )
  }
}

/** A database that cannot be opened is kept for whoever wants to look at it, under another name. */
export function setAside(directory: string): void {
  if (!isPresent(directory)) return
  const kept = `${directory}.damaged`
  rmSync(kept, { recursive: true, force: true })
  renameSync(directory, kept)
  syncDirectory(dirname(directory))
}

async function openLevel(directory: string, multithreading: boolean): Promise<ClassicLevel<ByteString, Buffer>> {
  const level = new ClassicLevel<ByteString, Buffer>(directory, { ...MEMORY, keyEncoding: BYTES, valueEncoding: 'buffer', multithreading })
  await openOrExplain(level)
  return level
}

async function openOrExplain(level: ClassicLevel<ByteString, Buffer>): Promise<void> {
  try {
    await level.open()
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
    const reason = reasonOf(cause ?? error)
    if (code === 'LEVEL_LOCKED') {
      throw new PacsimileError('locked', `${level.location} is in use by another process`, { cause: error })
    }
    if (IS_DAMAGE.test(reason)) throw new PacsimileError('damage', `${level.location} cannot be opened: ${reason}`, { cause: error })
    throw new PacsimileError(codeOf(reason), `Opening ${level.location}: ${reason}`, { cause: error })
  }
}

/** What LevelDB says of its own files. Everything else is the disk's word: it may pass. */
const IS_DAMAGE = /Corruption|NotFound|Invalid argument|No such file/

function codeOf(reason: string): 'space' | 'io' {
  return /No space left|Disk quota exceeded/.test(reason) ? 'space' : 'io'
}

/** A second time, if the first found no space and some could be freed. */
async function again<Result>(makeRoom: MakeRoom, attempt: () => Promise<Result>): Promise<Result> {
  try {
    return await attempt()
  } catch (error) {
    const isForSpace = error instanceof PacsimileError ? error.code === 'space' : errnoOf(error) === 'ENOSPC'
    if (!isForSpace || !makeRoom()) throw error
    return attempt()
  }
}

function removeTemporary(directory: string): void {
  const prefix = `${TEMPORARY_PREFIX}${basename(directory)}-`
  for (const name of readdirSync(dirname(directory))) {
    if (name.startsWith(prefix)) rmSync(join(dirname(directory), name), { recursive: true, force: true })
  }
}
