/**
 * Turns what looks have found into records, in the order that lets every record stand for itself.
 *
 * Order: directories that have another name are renamed; older versions of a path come before its present state (order.ts); a
 * path's directory is put before the path (a result whose directory is not recorded yet waits for a look at it); then one journal append for all results at hand, then their content is known to be needed, then the state follows.
 * Invariant: the state is changed by nobody else, and only after the append. It prevents a file without a directory in
 * the history, and a change that the state calls captured although no record says so.
 */
import type { Digest } from '../shared/digest.ts'
import { JOURNAL_BATCH_MAX } from '../shared/limits.ts'
import { isWithin, parentOf, type RelativePath } from '../shared/path.ts'
import type { Change } from '../shared/record.ts'
import { sameVersion, type Version } from '../shared/version.ts'
import { additionsOf, type Writer, withAdditions } from '../shared/version-extensions.ts'
import { Batches } from './batches.ts'
import type { Outcome } from './capture-job.ts'
import { Draft } from './draft.ts'
import type { Held } from './held.ts'
import type { Journal } from './journal.ts'
import type { JournalLag } from './journal-lag.ts'
import type { JournalEntry } from './journal-records.ts'
import type { Moves } from './moves.ts'
import type { Fences, Order } from './order.ts'
import { type Place, placeKey } from './place.ts'
import { RecentPuts } from './recent-puts.ts'
import type { Origin } from './settle-entry.ts'
import type { Known, State } from './state.ts'

/** A look that ended with something to record, or with the word that there is nothing. */
export interface Finding extends Place {
  readonly outcome: Extract<Outcome, { kind: 'version' | 'gone' | 'same' | 'still-open' }>
  /** What the state said when the look began, and how far it had come. */
  readonly knownSeq: number | undefined
  readonly knownInode: bigint | undefined
  readonly begun: Pick<State, 'applied' | 'removals'>
  /** Content that the capture keeps pinned. */
  readonly pinned: ReadonlySet<Digest>
  /** A look at its directory has ended since it began to wait for it. */
  readonly hasWaited: boolean
  /** It is of a version that was held open; `isLast`: it is not tried again, and a directory that is gone is inferred. */
  readonly pin?: { readonly isLast: boolean } | undefined
  /** Looks at it before this one that had to be repeated. */
  readonly retries: number
  /** Who wrote it last, as far as events told. */
  readonly writer: Writer | undefined
  readonly origin: Origin
}

export interface Recorded {
  /** `outdated`: it does not fit what was recorded meanwhile; look again. `held`: when older versions have been recorded. */
  readonly kind: 'recorded' | 'nothing' | 'outdated' | 'held'
  /** Inode whose other names may have changed with it. */
  readonly inodes: readonly bigint[]
  /** The directory whose entries changed. */
  readonly touched: RelativePath | undefined
  /** Another directory is there than before: what was recorded in the one before is to be compared with what is in it. */
  readonly isReplaced: boolean
}

/** Findings of one item are recorded together or not at all. */
type Item = { readonly findings: readonly Finding[] } | { readonly changes: readonly Change[] }
type Answer = readonly Recorded[] | 'waits' | readonly JournalEntry[]

const NOTHING: Recorded = { kind: 'nothing', inodes: [], touched: undefined, isReplaced: false }
const OUTDATED: Recorded = { ...NOTHING, kind: 'outdated' }
const HELD: Recorded = { ...NOTHING, kind: 'held' }

export interface RecorderParts {
  readonly journal: Journal
  readonly state: State
  readonly held: Held
  readonly order: Order
  readonly moves: Moves
  readonly lag: JournalLag
  /** Is asked for a look at a directory that is missing from the state, of which `looked` tells the end, and for a second look at a file. */
  readonly lookAt: (place: Place) => void
}

export class Recorder {
  readonly #parts: RecorderParts
  readonly #items: Batches<Item, Answer>
  readonly #recent = new RecentPuts()
  /** Who waits for a look at a directory, by that directory. */
  readonly #waiting = new Map<string, (() => void)[]>()

  constructor(parts: RecorderParts) {
    this.#parts = parts
    this.#items = new Batches(JOURNAL_BATCH_MAX, (items) => this.#commit(items))
  }

  /** Resolves when it is durable. @throws damage: begin a new epoch */
  async record(finding: Finding): Promise<Recorded> {
    return (await this.recordTogether([finding]))[0] ?? OUTDATED
  }

  /** All of them at one moment, or none: the others are then outdated too. */
  async recordTogether(findings: readonly Finding[]): Promise<readonly Recorded[]> {
    const answer = await this.#add({ findings })
    if (answer !== 'waits') return answer as readonly Recorded[]
    await Promise.all(findings.map((finding) => this.#directoryLooked(finding)))
    const recorded = await this.#add({ findings: findings.map((finding) => ({ ...finding, hasWaited: true })) })
    for (const finding of findings) await this.#lookAgainIfLinked(finding)
    return recorded as readonly Recorded[]
  }

  /** While it waited, another name of the file may have been recorded, and whoever looked for others did not find this one. */
  async #lookAgainIfLinked({ volume, path, outcome }: Finding): Promise<void> {
    if (outcome.kind !== 'version' || outcome.version.kind === 'directory') return
    const names = await this.#parts.state.namesOf(volume, [outcome.version.inode])
    if (names.some((name) => name !== path)) this.#parts.lookAt({ volume, path })
  }

  /** Appends what does not come from a look. */
  async note(changes: readonly Change[]): Promise<readonly JournalEntry[]> {
    return changes.length === 0 ? [] : ((await this.#add({ changes })) as readonly JournalEntry[])
  }

  async #add(item: Item): Promise<Answer> {
    const [answer = []] = await this.#items.add([item])
    return answer
  }

  #directoryLooked({ volume, path }: Place): Promise<void> {
    const directory = { volume, path: parentOf(path) ?? path }
    return new Promise((resolve) => {
      const key = placeKey(directory)
      const waiting = this.#waiting.get(key)
      if (waiting !== undefined) {
        waiting.push(resolve)
        return
      }
      this.#waiting.set(key, [resolve])
      this.#parts.lookAt(directory)
    })
  }

  /** A look at the place has ended, and was recorded if there was something to record. */
  looked(place: Place): void {
    if (this.#waiting.size === 0) return
    const key = placeKey(place)
    const waiting = this.#waiting.get(key) ?? []
    this.#waiting.delete(key)
    for (const resolve of waiting) resolve()
  }

  async #commit(items: readonly Item[]): Promise<Answer[]> {
    const { journal, state, order, moves } = this.#parts
    const findings = items.flatMap((item) => ('findings' in item ? item.findings : []))
    const fences = await order.fences(findings)
    await moves.record(findings.filter((finding) => !order.isHeld(finding)))
    const draft = new Draft(await this.#load(findings))
    const spans: { readonly from: number; readonly answer: Answer | undefined; readonly each: readonly number[] }[] = []
    for (const item of items) {
      const from = draft.changes.length
      const each: number[] = []
      if ('findings' in item) spans.push({ from, answer: this.#drawAll(item.findings, draft, fences, each), each })
      else spans.push({ from, answer: void draft.changes.push(...item.changes), each })
    }
    const entries = draft.changes.length > 0 ? await journal.append(draft.changes) : []
    for (const [i, item] of items.entries()) {
      if (!('findings' in item)) continue
      for (const [j, finding] of item.findings.entries()) this.#settleContent(finding, entries[spans[i]?.each[j] ?? -1])
    }
    const records = entries.map(({ record }) => record)
    this.#recent.note(records)
    await state.apply(records)
    return items.map((_, i) => spans[i]?.answer ?? entries.slice(spans[i]?.from, spans[i + 1]?.from))
  }

  /** `each` is told where in the draft the put of each finding stands, -1 where there is none. */
  #drawAll(findings: readonly Finding[], draft: Draft, fences: Fences, each: number[]): Answer {
    const { order } = this.#parts
    if (findings.some((finding) => order.isHeld(finding) || isOvertaken(finding, draft, this.#recent))) return findings.map(() => OUTDATED)
    if (findings.some((finding) => order.isBehind(finding, fences))) return findings.map(() => HELD)
    const missing = findings.filter((finding) => !hasDirectory(finding, draft))
    if (missing.some(({ hasWaited }) => !hasWaited)) return 'waits'
    if (missing.some(({ pin }) => pin?.isLast !== true)) return findings.map(() => OUTDATED)
    return findings.map((finding) => {
      const recorded = this.#draw(finding, draft)
      each.push(recorded.kind === 'recorded' && finding.outcome.kind === 'version' ? draft.changes.length - 1 : -1)
      return recorded
    })
  }

  /** The state of every place that the findings are about, and of the directories above them. */
  async #load(findings: readonly Finding[]): Promise<Map<string, Known | undefined>> {
    const places = new Map<string, Place>()
    for (const { volume, path, outcome, pin } of findings) {
      const above = pin?.isLast === true ? [...ancestorsOf(path)] : [parentOf(path) ?? path]
      for (const wanted of [path, ...above, outcome.kind === 'gone' ? outcome.topmost : path])
        places.set(placeKey({ volume, path: wanted }), { volume, path: wanted })
    }
    if (places.size === 0) return new Map()
    const known = await this.#parts.state.atMany([...places.values()])
    return new Map([...places.keys()].map((key, i) => [key, known[i]]))
  }

  /** Adds what a finding says to the draft. */
  #draw(finding: Finding, draft: Draft): Recorded {
    const { outcome } = finding
    switch (outcome.kind) {
      case 'same':
      case 'still-open':
        return this.#isStillKnown(finding, draft) ? NOTHING : OUTDATED
      case 'gone':
        return drawGone(finding, outcome.topmost, draft)
      case 'version':
        return drawVersion(finding, outcome.version, draft)
    }
  }

  #isStillKnown(finding: Finding, draft: Draft): boolean {
    return this.#parts.state.removals === finding.begun.removals && draft.changes.length === 0
      ? true
      : draft.loadedAt(finding)?.seq === finding.knownSeq
  }

  #settleContent({ pinned, outcome, origin }: Finding, entry: JournalEntry | undefined): void {
    if (entry?.record.kind !== 'put' || outcome.kind !== 'version' || outcome.version.kind !== 'file') return
    const { chunks, ctimeNs } = outcome.version
    const digests = chunks.map(({ digest }) => digest)
    this.#parts.held.need(entry.record.seq, digests, pinned)
    if (origin === 'event') this.#parts.lag.note(ctimeNs, Date.now())
  }

  async close(): Promise<void> {
    await this.#items.close()
  }
}

/** What a record of a look that found nothing would end. */
function endedBy({ volume, path }: Place, topmost: RelativePath, draft: Draft): RelativePath | undefined {
  return [topmost, path].find((candidate) => draft.versionAt({ volume, path: candidate }) !== undefined)
}

/** Whether it found nothing where something was recorded since it began, there or below: that may have come later. */
function isOvertaken({ volume, path, outcome, begun }: Finding, draft: Draft, recent: RecentPuts): boolean {
  const ended = outcome.kind === 'gone' ? endedBy({ volume, path }, outcome.topmost, draft) : undefined
  if (ended === undefined) return false
  const known = draft.loadedAt({ volume, path: ended })
  if (known === undefined || known.seq > begun.applied) return true
  if (known.version.kind !== 'directory') return false
  const isWithinIt = (change: Change): boolean => change.kind === 'put' && change.volume === volume && isWithin(change.path, ended)
  return recent.hasWithin({ volume, path: ended }, begun.applied) || draft.changes.some(isWithinIt)
}

function drawGone({ volume, path }: Place, topmost: RelativePath, draft: Draft): Recorded {
  const gone = endedBy({ volume, path }, topmost, draft)
  if (gone === undefined) return NOTHING
  const inodes = sharedInodes(draft.versionAt({ volume, path: gone }))
  draft.remove({ volume, path: gone })
  return { kind: 'recorded', inodes, touched: parentOf(gone), isReplaced: false }
}

function drawVersion(finding: Finding, version: Version, draft: Draft): Recorded {
  const { path, writer, pin } = finding
  const before = draft.versionAt(finding)
  // A directory has taken the name since: to put the file there would end what is in it.
  if (pin !== undefined && before?.kind === 'directory') return NOTHING
  if (pin?.isLast === true) inferDirectories(finding, version, draft)
  const isLost = draft.loadedAt(finding)?.isLost === true
  if (before !== undefined && !isLost && isSameCapture(before, version)) return NOTHING
  draft.put(
    finding,
    writer === undefined || version.kind !== 'file' ? version : withAdditions(version, { ...additionsOf(version), writer }),
  )
  const isNewEntry = before === undefined || before.kind !== version.kind || before.inode !== version.inode
  const inodes = [...sharedInodes(before), ...sharedInodes(version)]
  const isReplaced = before?.kind === 'directory' && version.kind === 'directory' && before.inode !== version.inode
  return { kind: 'recorded', inodes, touched: isNewEntry ? parentOf(path) : undefined, isReplaced }
}

function hasDirectory({ volume, path, outcome }: Finding, draft: Draft): boolean {
  const parent = parentOf(path)
  return outcome.kind !== 'version' || parent === undefined || draft.versionAt({ volume, path: parent })?.kind === 'directory'
}

/** The directories of a version that outlived them: they were there, and nobody saw them. */
function inferDirectories({ volume, path }: Finding, { uid, gid, mtimeNs, ctimeNs }: Version, draft: Draft): void {
  const missing = [...ancestorsOf(path)].filter((above) => draft.versionAt({ volume, path: above })?.kind !== 'directory')
  for (const above of missing.reverse()) {
    const inferred: Version = { kind: 'directory', mode: 0o700, uid, gid, mtimeNs, ctimeNs, inode: 0n, links: 1, xattrs: [] }
    draft.put({ volume, path: above }, withAdditions(inferred, { isInferred: true }))
  }
}

/** From the directory that holds it up to the root. */
function* ancestorsOf(path: RelativePath): Generator<RelativePath, void> {
  for (let above = parentOf(path); above !== undefined; above = parentOf(above)) yield above
}

function sharedInodes(version: Version | undefined): bigint[] {
  return version !== undefined && version.kind !== 'directory' && version.links > 1 ? [version.inode] : []
}

/** Whether a record of it would say nothing new. */
function isSameCapture(a: Version, b: Version): boolean {
  const isSameConsistency = a.kind !== 'file' || b.kind !== 'file' || a.consistency === b.consistency
  return isSameConsistency && a.inode === b.inode && a.links === b.links && a.ctimeNs === b.ctimeNs && sameVersion(a, b)
}
