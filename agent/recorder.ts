/**
 * Turns what looks have found into records, in the order that lets every record stand for itself.
 *
 * Order: a path's directory is put before the path (a result whose directory is not recorded yet waits for a look at it);
 * then one journal append for all results at hand, then their content is known to be needed, then the state follows.
 * Invariant: the state is changed by nobody else, and only after the append. It prevents a file without a directory in
 * the history, and a change that the state calls captured although no record says so.
 */
import type { Digest } from '../shared/digest.ts'
import { JOURNAL_BATCH_MAX } from '../shared/limits.ts'
import { parentOf, type RelativePath } from '../shared/path.ts'
import type { Change } from '../shared/record.ts'
import { sameVersion, type Version } from '../shared/version.ts'
import { Batches } from './batches.ts'
import type { Outcome } from './capture-job.ts'
import { Draft } from './draft.ts'
import type { Held } from './held.ts'
import type { Journal } from './journal.ts'
import type { JournalEntry } from './journal-records.ts'
import { type Place, placeKey } from './place.ts'
import type { Known, State } from './state.ts'

/** A look that ended with something to record, or with the word that there is nothing. */
export interface Finding extends Place {
  readonly outcome: Extract<Outcome, { kind: 'version' | 'gone' | 'same' | 'still-open' }>
  /** What the state said when the look began, and how many removals it had seen. */
  readonly knownSeq: number | undefined
  readonly removals: number
  /** Content that the capture keeps pinned. */
  readonly pinned: ReadonlySet<Digest>
  /** A look at its directory has ended since it began to wait for it. */
  readonly hasWaited: boolean
}

export interface Recorded {
  /** `outdated`: it does not fit what was recorded meanwhile; look again. */
  readonly kind: 'recorded' | 'nothing' | 'outdated'
  /** Inode whose other names may have changed with it. */
  readonly inodes: readonly bigint[]
  /** The directory whose entries changed. */
  readonly touched: RelativePath | undefined
}

type Item = { readonly finding: Finding } | { readonly changes: readonly Change[] }
type Answer = Recorded | 'waits' | readonly JournalEntry[]

const NOTHING: Recorded = { kind: 'nothing', inodes: [], touched: undefined }
const OUTDATED: Recorded = { kind: 'outdated', inodes: [], touched: undefined }

export class Recorder {
  readonly #journal: Journal
  readonly #state: State
  readonly #held: Held
  readonly #lookAt: (place: Place) => void
  readonly #items: Batches<Item, Answer>
  /** Who waits for a look at a directory, by that directory. */
  readonly #waiting = new Map<string, (() => void)[]>()

  /** `lookAt` is asked for a look at a directory that is missing from the state; its end is told by `looked`. */
  constructor(parts: { journal: Journal; state: State; held: Held; lookAt: (place: Place) => void }) {
    this.#journal = parts.journal
    this.#state = parts.state
    this.#held = parts.held
    this.#lookAt = parts.lookAt
    this.#items = new Batches(JOURNAL_BATCH_MAX, (items) => this.#commit(items))
  }

  /** Resolves when it is durable. @throws damage: begin a new epoch */
  async record(finding: Finding): Promise<Recorded> {
    const answer = await this.#add({ finding })
    if (answer !== 'waits') return answer as Recorded
    await this.#directoryLooked(finding)
    return (await this.#add({ finding: { ...finding, hasWaited: true } })) as Recorded
  }

  /** Appends what does not come from a look. */
  async note(changes: readonly Change[]): Promise<readonly JournalEntry[]> {
    return changes.length === 0 ? [] : ((await this.#add({ changes })) as readonly JournalEntry[])
  }

  async #add(item: Item): Promise<Answer> {
    const [answer = NOTHING] = await this.#items.add([item])
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
      this.#lookAt(directory)
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
    const draft = new Draft(await this.#load(items))
    const spans: { readonly from: number; readonly answer: Answer | undefined }[] = []
    for (const item of items) {
      const from = draft.changes.length
      if ('finding' in item) spans.push({ from, answer: this.#draw(item.finding, draft) })
      else spans.push({ from, answer: void draft.changes.push(...item.changes) })
    }
    const entries = draft.changes.length > 0 ? await this.#journal.append(draft.changes) : []
    for (const [i, item] of items.entries()) {
      if ('finding' in item) this.#settleContent(item.finding, entries.slice(spans[i]?.from, spans[i + 1]?.from))
    }
    await this.#state.apply(entries.map(({ record }) => record))
    return items.map((_, i) => spans[i]?.answer ?? entries.slice(spans[i]?.from, spans[i + 1]?.from))
  }

  /** The state of every place that the findings are about, and of the directories above them. */
  async #load(items: readonly Item[]): Promise<Map<string, Known | undefined>> {
    const places = new Map<string, Place>()
    for (const item of items) {
      if (!('finding' in item)) continue
      const { volume, path, outcome } = item.finding
      const paths = [path, parentOf(path) ?? path, outcome.kind === 'gone' ? outcome.topmost : path]
      for (const wanted of paths) places.set(placeKey({ volume, path: wanted }), { volume, path: wanted })
    }
    if (places.size === 0) return new Map()
    const known = await this.#state.atMany([...places.values()])
    return new Map([...places.keys()].map((key, i) => [key, known[i]]))
  }

  /** Adds what a finding says to the draft. */
  #draw(finding: Finding, draft: Draft): Recorded | 'waits' {
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
    return this.#state.removals === finding.removals && draft.changes.length === 0
      ? true
      : draft.loadedAt(finding)?.seq === finding.knownSeq
  }

  #settleContent({ pinned, outcome }: Finding, entries: readonly JournalEntry[]): void {
    const [entry] = entries
    if (entry?.record.kind === 'put' && outcome.kind === 'version' && outcome.version.kind === 'file') {
      this.#held.need(
        entry.record.seq,
        outcome.version.chunks.map(({ digest }) => digest),
        pinned,
      )
    }
  }

  async close(): Promise<void> {
    await this.#items.close()
  }
}

function drawGone({ volume, path }: Place, topmost: RelativePath, draft: Draft): Recorded {
  const gone = [topmost, path].find((candidate) => draft.versionAt({ volume, path: candidate }) !== undefined)
  if (gone === undefined) return NOTHING
  const inodes = sharedInodes(draft.versionAt({ volume, path: gone }))
  draft.remove({ volume, path: gone })
  return { kind: 'recorded', inodes, touched: parentOf(gone) }
}

function drawVersion(finding: Finding, version: Version, draft: Draft): Recorded | 'waits' {
  const { volume, path } = finding
  const parent = parentOf(path)
  if (parent !== undefined && draft.versionAt({ volume, path: parent })?.kind !== 'directory') return finding.hasWaited ? OUTDATED : 'waits'
  const before = draft.versionAt(finding)
  const isLost = draft.loadedAt(finding)?.isLost === true
  if (before !== undefined && !isLost && isSameCapture(before, version)) return NOTHING
  draft.put(finding, version)
  const isNewEntry = before === undefined || before.kind !== version.kind || before.inode !== version.inode
  return { kind: 'recorded', inodes: [...sharedInodes(before), ...sharedInodes(version)], touched: isNewEntry ? parent : undefined }
}

function sharedInodes(version: Version | undefined): bigint[] {
  return version !== undefined && version.kind !== 'directory' && version.links > 1 ? [version.inode] : []
}

/** Whether a record of it would say nothing new. */
function isSameCapture(a: Version, b: Version): boolean {
  const isSameConsistency = a.kind !== 'file' || b.kind !== 'file' || a.consistency === b.consistency
  return isSameConsistency && a.inode === b.inode && a.links === b.links && a.ctimeNs === b.ctimeNs && sameVersion(a, b)
}
