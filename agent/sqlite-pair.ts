/**
 * Captures an SQLite database in WAL mode together with its write-ahead log, while it is being written.
 *
 * A log only grows within one generation, which its header names; a checkpoint copies committed frames from it into the
 * database; the next generation begins by writing another header. So: read the header, then the database, then the log,
 * then the header again. If it is the same, every page that a checkpoint may have changed meanwhile is in the log, and
 * replaying the log over the database gives every transaction that was committed before the database had been read.
 * Without a log, or with an empty one, the database must not have changed while it was read.
 * Invariant: a pair is handed over only if that held, or if nobody had either file open for writing. It prevents a
 * database restored from one moment and its log from another, which SQLite opens without complaint and answers wrongly.
 * Source: sqlite.org/walformat.html, sections 2 and 4.
 */
import { closeSync, readSync } from 'node:fs'
import type { Digest } from '../shared/digest.ts'
import { errnoOf, reasonOf } from '../shared/errors.ts'
import { WHOLE_READ_BYTES_MAX } from '../shared/limits.ts'
import { nameOf, type RelativePath, relativePath } from '../shared/path.ts'
import { rootProblem } from './ancestry.ts'
import { type Beneath, linuxCalls, type Obstacle, openSpot, statSpot } from './beneath.ts'
import type { ExaminePairJob, Outcome, PairPart, Side } from './capture-job.ts'
import type { Content, Failure, ReadRequest } from './content-reader.ts'
import { CHANGED_MEANWHILE, fileVersion, shipment, splitDigests, TOO_MANY_CHUNKS, type Workplace } from './file-capture.ts'
import { fileStat, isSameFile, isSameState, isUnchanged, kindOf } from './file-stat.ts'
import type { Lease } from './lease.ts'
import type { Stat } from './system-calls.ts'

const LOG_ENDING = '-wal'
const MAGIC = 'SQLite format 3\0'
/** Where a database says by which version it is to be written, and to be read; both are WAL for a database in WAL mode. */
const WRITE_VERSION_AT = 18
const READ_VERSION_AT = 19
const WAL_VERSION = 2
const HEAD_BYTES = 20
const LOG_HEADER_BYTES = 32
/** Generations of the log that may pass while the pair is read, and how long another try is begun. */
const TRIES_MAX = 5
const TRIES_MS_MAX = 10_000
/** The clock by which older filesystems stamp their files ticks this slowly: two writes within a tick look like one. */
const TICK_MS = 10
/** What a file may grow while it is read, to be read as a whole still. */
const GROWTH_BYTES = 1 << 20
const TICKS_MAX = 5

interface Opened {
  readonly fd: number
  readonly stat: Stat
}

/** Whether the first bytes of a file are those of a database in WAL mode. */
export function isDatabase(head: Uint8Array): boolean {
  if (head.length < HEAD_BYTES || head[WRITE_VERSION_AT] !== WAL_VERSION || head[READ_VERSION_AT] !== WAL_VERSION) return false
  return Buffer.from(head.buffer, head.byteOffset, MAGIC.length).toString('latin1') === MAGIC
}

/** The database in WAL mode whose log the path is, or would be if it were there. @throws what open(2) says */
export function baseOfLog(beneath: Beneath, path: RelativePath): RelativePath | undefined {
  if (!path.endsWith(LOG_ENDING) || nameOf(path) === LOG_ENDING) return undefined
  const base = relativePath(path.slice(0, -LOG_ENDING.length))
  const spot = beneath.spot(base)
  if (spot.kind !== 'spot') return undefined
  const stat = statSpot(spot)
  if (stat === undefined || kindOf(stat) !== 'file') return undefined
  const fd = openSpot(spot)
  try {
    return isDatabase(headOf(fd, HEAD_BYTES)) ? base : undefined
  } finally {
    linuxCalls().close(fd)
  }
}

/** `busy` also when it is no database in WAL mode any more: each of the two is then a file of its own. */
export function examinePair(place: Workplace, job: ExaminePairJob): Outcome {
  const startedMs = performance.now()
  try {
    // What one try has shipped is not shipped by the next.
    const had = splitDigests(job.base.storedDigests + job.wal.storedDigests)
    for (let tries = 0; tries < TRIES_MAX && performance.now() - startedMs < TRIES_MS_MAX; tries++) {
      using look = new PairLook(place, job, had, tries > 0)
      const found = look.look()
      if (found === 'again') continue
      return 'kind' in found ? found : { kind: 'pair', ...found, durationMs: performance.now() - startedMs }
    }
    return { kind: 'busy' }
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === undefined) throw error
    return CHANGED_MEANWHILE.has(errno) ? { kind: 'busy' } : { kind: 'unreadable', reason: reasonOf(error) }
  }
}

interface Parts {
  readonly base: PairPart
  readonly wal: PairPart
}

type Found = Parts | Exclude<Outcome, { kind: 'pair' }> | 'again'

/** One try. */
class PairLook {
  readonly #calls = linuxCalls()
  readonly #place: Workplace
  readonly #job: ExaminePairJob
  readonly #had: Set<Digest>
  /** The log began anew while it was read the last time: a copy is made faster than content is hashed. */
  readonly #isHurried: boolean
  readonly #held = new DisposableStack()

  constructor(place: Workplace, job: ExaminePairJob, had: Set<Digest>, isHurried: boolean) {
    this.#isHurried = isHurried
    this.#place = place
    this.#job = job
    this.#had = had
  }

  look(): Found {
    const { base, wal } = this.#job
    const root = this.#place.beneath.root()
    if (typeof root !== 'number') return root
    const openBase = this.#open(base)
    if (openBase === undefined) return { kind: 'busy' }
    if ('kind' in openBase) return openBase
    if (!isDatabase(headOf(openBase.fd, HEAD_BYTES))) return { kind: 'busy' }
    const openWal = this.#open(wal)
    if (openWal !== undefined && 'kind' in openWal) return openWal
    const leases = this.#lease(openBase, openWal)
    if (leases !== undefined) return this.#readLeased(openBase, openWal, leases, root)
    if (openWal === undefined || openWal.stat.size === 0n) return this.#readWithoutLog(openBase, openWal, root)
    return this.#readWithLog(openBase, openWal, root)
  }

  /** Undefined: it is not there. */
  #open({ path }: Side): Opened | Obstacle | Extract<Outcome, { kind: 'busy' | 'unreadable' }> | undefined {
    const spot = this.#place.beneath.spot(path)
    if (spot.kind !== 'spot') return spot.kind === 'gone' ? { kind: 'busy' } : spot
    const stat = statSpot(spot)
    if (stat === undefined) return undefined
    if (stat.dev !== this.#place.root.device) return { kind: 'foreign' }
    if (kindOf(stat) !== 'file') return { kind: 'unreadable', reason: `'${nameOf(path)}' of an SQLite database is no regular file` }
    const fd = openSpot(spot)
    this.#held.defer(() => this.#calls.close(fd))
    const opened = this.#calls.statAt(fd, '')
    return opened === undefined || !isSameFile(opened, stat) ? { kind: 'busy' } : { fd, stat: opened }
  }

  /** Undefined: somebody has one of them open for writing, or it cannot be known. */
  #lease(base: Opened, wal: Opened | undefined): { base: Lease; wal: Lease | undefined } | undefined {
    const { leases } = this.#place
    const baseLease = leases.take(base.fd)
    if (typeof baseLease === 'string') return undefined
    this.#held.defer(baseLease.release)
    if (wal === undefined) return { base: baseLease, wal: undefined }
    const walLease = leases.take(wal.fd)
    if (typeof walLease === 'string') {
      baseLease.release()
      return undefined
    }
    this.#held.defer(walLease.release)
    // Between looking at them and their leases they may have been opened, written and closed.
    if ([base, wal].every(({ fd, stat }) => isSameState(this.#statOf(fd), stat))) return { base: baseLease, wal: walLease }
    baseLease.release()
    walLease.release()
    return undefined
  }

  /** While the log's lease is held nobody can write to the database either: SQLite opens both. */
  #readLeased(base: Opened, wal: Opened | undefined, leases: { base: Lease; wal: Lease | undefined }, root: number): Found {
    const { reader } = this.#place
    const read = (side: Side, opened: Opened, lease: Lease | undefined): Content | Failure | 'same' =>
      isKnown(side, opened.stat) ? 'same' : reader.read({ ...this.#request(side, opened, root), lease })
    const baseContent = read(this.#job.base, base, leases.base)
    const walContent = wal === undefined ? undefined : read(this.#job.wal, wal, leases.wal)
    if (!this.#isStillAt(this.#job.base, base) || !this.#isStillAt(this.#job.wal, wal)) return 'again'
    if (!isSameState(this.#statOf(base.fd), base.stat)) return 'again'
    return this.#parts(base, baseContent, wal, walContent)
  }

  #readWithoutLog(opened: Opened, wal: Opened | undefined, root: number): Found {
    const base = { fd: opened.fd, stat: this.#stampedStat(opened.fd) }
    const baseContent = isKnown(this.#job.base, base.stat) ? 'same' : this.#snapshot(this.#job.base, base, root)()
    const walContent = wal === undefined ? undefined : this.#snapshot(this.#job.wal, wal, root)()
    if (!this.#isStillAt(this.#job.base, base) || !this.#isStillAt(this.#job.wal, wal)) return 'again'
    if (!isSameState(this.#statOf(base.fd), base.stat)) return 'again'
    if (wal !== undefined && this.#statOf(wal.fd).size !== 0n) return 'again'
    return this.#parts(base, baseContent, wal, walContent)
  }

  #readWithLog(opened: Opened, wal: Opened, root: number): Found {
    const base = { fd: opened.fd, stat: this.#stampedStat(opened.fd) }
    const header = headOf(wal.fd, LOG_HEADER_BYTES)
    if (header.length < LOG_HEADER_BYTES) return 'again'
    const isSame = isKnown(this.#job.base, base.stat)
    const baseContent = isSame ? undefined : this.#snapshot(this.#job.base, base, root)
    const walContent = this.#snapshot(this.#job.wal, wal, root)
    if (!header.equals(headOf(wal.fd, LOG_HEADER_BYTES))) return 'again'
    if (!this.#isStillAt(this.#job.base, base) || !this.#isStillAt(this.#job.wal, wal)) return 'again'
    if (isSame && !isSameState(this.#statOf(base.fd), base.stat)) return 'again'
    return this.#parts(base, baseContent?.() ?? 'same', wal, walContent())
  }

  /** Takes the content now; where it is a clone or a small file, it is cut only when it is asked for. */
  #snapshot(side: Side, opened: Opened, root: number): () => Content | Failure {
    const { reader, reflinks } = this.#place
    const request = this.#request(side, opened, root)
    const toContent = (body: ReturnType<typeof reader.readFixed>): Content | Failure =>
      typeof body === 'string' ? body : { ...body, consistency: 'crash-consistent', stat: opened.stat }
    const isLarge = opened.stat.size > WHOLE_READ_BYTES_MAX - GROWTH_BYTES
    const clone =
      reflinks.clone(opened.fd, root, opened.stat.dev) ??
      (isLarge && this.#isHurried ? reflinks.copy(opened.fd, root, opened.stat.size) : undefined)
    if (clone !== undefined) {
      this.#held.defer(() => closeSync(clone))
      return () => toContent(reader.readFixed(clone, request))
    }
    if (isLarge) {
      const content = toContent(reader.readOnce(request))
      return () => content
    }
    // Cutting and compressing waits until it is known that the log did not begin anew.
    const copy = reader.copyOnce(request)
    return () => (copy === 'broken' ? copy : toContent(reader.cutCopy(copy, request)))
  }

  #parts(
    base: Opened,
    baseContent: Content | Failure | 'same',
    wal: Opened | undefined,
    walContent: Content | Failure | 'same' | undefined,
  ): Found {
    const basePart = part(this.#job.base, base, baseContent)
    const walPart = wal === undefined || walContent === undefined ? this.#gone() : part(this.#job.wal, wal, walContent)
    if (basePart === 'again' || walPart === 'again') return 'again'
    if (!isPart(basePart)) return basePart
    return isPart(walPart) ? { base: basePart, wal: walPart } : walPart
  }

  /** The log is not there. */
  #gone(): PairPart | Extract<Outcome, { kind: 'root-lost' }> {
    const problem = rootProblem(this.#place.root)
    return problem === undefined ? { kind: 'gone', topmost: this.#job.wal.path } : { kind: 'root-lost', reason: problem }
  }

  #request(side: Side, { fd, stat }: Opened, root: number): ReadRequest {
    const { sizes } = this.#place
    const take = shipment(this.#place, this.#job.id, side, stat.size, this.#had)
    return { fd, stat, lease: undefined, root, sizes, isRefused: () => false, take }
  }

  /** Whether the path names what was opened, or nothing if nothing was. */
  #isStillAt({ path }: Side, opened: Opened | undefined): boolean {
    this.#place.beneath.renew()
    const spot = this.#place.beneath.spot(path)
    const stat = spot.kind === 'spot' ? statSpot(spot) : undefined
    if (opened === undefined) return stat === undefined
    return stat !== undefined && isSameFile(stat, opened.stat)
  }

  /** Not within the tick of its last change, if that can be had: what is written later has another time then. */
  #stampedStat(fd: number): Stat {
    let stat = this.#statOf(fd)
    for (let ticks = 0; ticks < TICKS_MAX && Date.now() - Number(stat.mtimeNs / 1_000_000n) < TICK_MS; ticks++) {
      Atomics.wait(NEVER_NOTIFIED, 0, 0, TICK_MS)
      stat = this.#statOf(fd)
    }
    return stat
  }

  #statOf(fd: number): Stat {
    const stat = this.#calls.statAt(fd, '')
    if (stat === undefined) throw new TypeError('an open file has a state')
    return stat
  }

  [Symbol.dispose](): void {
    this.#held.dispose()
  }
}

const NEVER_NOTIFIED = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))

function isKnown({ known }: Side, stat: Stat): boolean {
  return known?.doubt === 'none' && isUnchanged(known, fileStat(stat))
}

function part(
  side: Side,
  opened: Opened,
  content: Content | Failure | 'same',
): PairPart | Extract<Outcome, { kind: 'unreadable' }> | 'again' {
  if (content === 'same') return { kind: 'same' }
  if (typeof content === 'string') return 'again'
  const version = fileVersion(content, opened.fd)
  if (version === undefined) return { kind: 'unreadable', reason: TOO_MANY_CHUNKS }
  const isSame = isKnown(side, opened.stat) && version.chunks.map(({ digest }) => digest).join('') === side.storedDigests
  return isSame ? { kind: 'same' } : { kind: 'version', version, durationMs: 0 }
}

function isPart(outcome: Outcome): outcome is PairPart {
  return outcome.kind === 'version' || outcome.kind === 'same' || outcome.kind === 'gone'
}

/** The first bytes, fewer where the file is shorter. */
function headOf(fd: number, length: number): Buffer {
  const head = Buffer.alloc(length)
  return head.subarray(0, readSync(fd, head, 0, length, 0))
}
