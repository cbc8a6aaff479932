/**
 * Whether a volume is being lost: too many of its files gone, renamed or not readable as DICOM any more within a minute.
 *
 * It is counted what was there at the window's beginning and is lost now. So files that come, temporary ones, rewritten headers and
 * files that are put back count for nothing, and a scan that finds everything again neither. What one study alone has lost is left out, as
 * long as its files are gone and nothing unreadable has come in their place: studies are deleted. Invariant: the answer follows from the journal,
 * the times of its records and what somebody has allowed, so it is the same after a restart. It prevents an archive that is
 * encrypted from taking its stand-in along.
 */
import { type HybridTime, millisecondsOf } from '../shared/clock.ts'
import { type Label, type RelativePath, ROOT } from '../shared/path.ts'
import { comparePositions, type Position, type RecordSummary } from '../shared/record.ts'
import { type FileVersion, sameContent, type Version } from '../shared/version.ts'
import type { Catalog } from './catalog.ts'
import type { DicomHeads } from './dicom-heads.ts'

export interface BreakerRule {
  /** Of the files, above 0 and below 1. */
  readonly share: number
  /** Fewer never count. */
  readonly files: number
  readonly windowMs: number
}

export interface MassChange {
  /** The last point before it. */
  readonly clean: Position
  readonly gone: number
  readonly unreadable: number
  /** That there were before. */
  readonly files: number
}

export interface BreakerParts {
  readonly agent: Label
  readonly volume: Label
  readonly catalog: Catalog
  readonly heads: DicomHeads
  readonly rule: BreakerRule
  /** Everything up to here is taken for what it should be. */
  readonly accepted: Position
  /** Lets the event loop go when it is time. @throws when it is time to stop */
  readonly breathe: () => Promise<void>
}

interface Loss {
  readonly how: 'gone' | 'unreadable'
  readonly version: FileVersion
  readonly position: Position
  readonly ms: number
}

const SECOND_MS = 1000

export class Breaker {
  readonly #parts: BreakerParts
  /** Where each of the last seconds ended, and the one before them. */
  readonly #seconds: { readonly second: number; position: Position }[] = []
  /** Nothing before it is looked at. */
  #floor: Position
  readonly #lost = new Map<RelativePath, Loss>()
  /** When the first full scan was done. */
  #completeAt: HybridTime | undefined
  /** So many may be lost before it is counted again. */
  #enough = 0
  /** Since a study was left out: what has come, and may hold what was in it. */
  #cameSince: number | undefined

  constructor(parts: BreakerParts) {
    this.#parts = parts
    this.#floor = parts.accepted
  }

  /** Takes the next record of the volume. `isExpected`: somebody said that it would come. */
  async take(record: RecordSummary, isExpected: boolean): Promise<MassChange | undefined> {
    const { agent, volume, catalog, accepted } = this.#parts
    const ms = millisecondsOf(record.time)
    this.#completeAt ??= catalog.volume(agent, volume)?.completeAt
    const isFirstScan = this.#completeAt === undefined || record.time <= this.#completeAt
    if (isFirstScan || isExpected || comparePositions(record, accepted) <= 0) {
      this.#floor = { epoch: record.epoch, seq: record.seq }
      this.#lost.clear()
      this.#enough = 0
      this.#cameSince = undefined
      return undefined
    }
    const baseline = this.#baselineAt(ms)
    this.#expire(ms)
    const before = this.#lost.size
    await this.#look(record, baseline, ms)
    this.#note(record, ms)
    if (this.#lost.size > before) return this.#judge(record, baseline)
    if (this.#cameSince === undefined || record.kind !== 'put') return undefined
    this.#cameSince += 1
    if (this.#cameSince < this.#parts.rule.files / 2) return undefined
    this.#enough = 0
    return this.#judge(record, baseline)
  }

  /** The state against which what a record of that time does is held. */
  #baselineAt(ms: number): Position {
    const before = Math.floor((ms - this.#parts.rule.windowMs) / SECOND_MS)
    while ((this.#seconds[1]?.second ?? before) < before) this.#seconds.shift()
    const [first] = this.#seconds
    const found = first !== undefined && first.second < before ? first.position : this.#floor
    return comparePositions(found, this.#floor) > 0 ? found : this.#floor
  }

  #note({ epoch, seq }: Position, ms: number): void {
    const second = Math.floor(ms / SECOND_MS)
    const last = this.#seconds.at(-1)
    if (last === undefined || second > last.second) this.#seconds.push({ second, position: { epoch, seq } })
    else last.position = { epoch, seq }
  }

  #expire(ms: number): void {
    for (const [path, loss] of this.#lost) {
      // They stand in the order of their times, but for what was lost anew.
      if (loss.ms >= ms - this.#parts.rule.windowMs) break
      this.#lost.delete(path)
    }
    if (this.#lost.size > 0) return
    this.#enough = 0
    this.#cameSince = undefined
  }

  async #look(record: RecordSummary, baseline: Position, ms: number): Promise<void> {
    const { agent, volume, catalog } = this.#parts
    switch (record.kind) {
      case 'put': {
        const version = catalog.versionBy(agent, volume, record.path, record)
        // What comes can be read, as almost all does: that costs no look into the past.
        if (version?.kind === 'file' && this.#parts.heads.isDicom(version) === true) {
          this.#lost.delete(record.path)
          return
        }
        const entry = await catalog.entryAt(agent, volume, record.path, baseline)
        if (entry?.version.kind === 'file') this.#settle(entry.path, entry.version, record, ms)
        else if (entry?.version.kind === 'directory' && version?.kind !== 'directory')
          await this.#settleBelow(record.path, baseline, record, ms)
        return
      }
      case 'remove':
        await this.#settleBelow(record.path, baseline, record, ms)
        return
      case 'rename':
        await this.#settleBelow(record.path, baseline, record, ms)
        await this.#settleBelow(record.to, baseline, record, ms)
        return
      case 'sweep':
        await this.#settleBelow(ROOT, baseline, record, ms)
        return
      default:
        return
    }
  }

  async #settleBelow(path: RelativePath, baseline: Position, record: Position, ms: number): Promise<void> {
    const { agent, volume, catalog, breathe } = this.#parts
    for await (const entry of catalog.treeAt(agent, volume, path, baseline)) {
      if (entry.version.kind === 'file') this.#settle(entry.path, entry.version, record, ms)
      await breathe()
    }
  }

  /** Holds what is at a path now against what was there. */
  #settle(path: RelativePath, before: FileVersion, { epoch, seq }: Position, ms: number): void {
    const { agent, volume, catalog } = this.#parts
    const how = this.#lossOf(before, catalog.newest(agent, volume, path)?.version)
    if (how === undefined) this.#lost.delete(path)
    else if (!this.#lost.has(path)) this.#lost.set(path, { how, version: before, position: { epoch, seq }, ms })
  }

  #lossOf(before: FileVersion, now: Version | undefined): Loss['how'] | undefined {
    if (now?.kind !== 'file') return 'gone'
    if (sameContent(before, now)) return undefined
    const { heads } = this.#parts
    return heads.isDicom(now) === false && heads.isDicom(before) === true ? 'unreadable' : undefined
  }

  async #judge(record: Position, baseline: Position): Promise<MassChange | undefined> {
    const { share, files: filesMin } = this.#parts.rule
    const lost = this.#lost.size
    if (lost < filesMin || lost <= this.#enough) return undefined
    // Twice as many need not be counted: then so many more may be lost first.
    const files = await this.#count(baseline, Math.ceil((2 * lost) / share))
    if (lost <= files * share) {
      this.#enough = Math.max(lost, Math.floor(files * share))
      return undefined
    }
    const study = await this.#largestDeleted(record, baseline)
    const [counted, among] = [lost - study, files - study]
    if (counted < filesMin || counted <= among * share) {
      this.#enough = lost + Math.ceil(filesMin / 2)
      this.#cameSince = 0
      return undefined
    }
    const losses = [...this.#lost.values()]
    const first = losses.reduce((least, { position }) => (comparePositions(position, least) < 0 ? position : least), record)
    const unreadable = losses.filter(({ how }) => how === 'unreadable').length
    const clean = await this.#cleanBefore({ epoch: first.epoch, seq: first.seq }, baseline, record)
    return { clean, gone: lost - unreadable, unreadable, files }
  }

  /**
   * The last moment before the first loss, and before anything came that what was lost may be in: of what is renamed, the new name may
   * be recorded before the end of the old one.
   */
  async #cleanBefore(first: Position, baseline: Position, until: Position): Promise<Position> {
    const { agent, volume, catalog, heads } = this.#parts
    const inodes = new Set([...this.#lost.values()].map(({ version }) => version.inode))
    const gone = [...this.#lost.values()].filter(({ how }) => how === 'gone').length
    const hasStrangers = gone > 0 && (await this.#strangers(until, baseline, gone / 2))
    let [clean, last, lastMs] = [baseline, baseline, 0]
    for await (const record of catalog.summaries(agent, baseline, first)) {
      const ms = millisecondsOf(record.time)
      // A moment is not cut in two.
      if (ms > lastMs) clean = last
      if (record.kind === 'put' && record.volume === volume) {
        const version = catalog.versionBy(agent, volume, record.path, record)
        const mayHoldLost = version?.kind === 'file' && (inodes.has(version.inode) || (hasStrangers && heads.isDicom(version) === false))
        if (mayHoldLost && (await catalog.entryAt(agent, volume, record.path, baseline)) === undefined) return clean
      }
      lastMs = ms
      last = { epoch: record.epoch, seq: record.seq }
    }
    return clean
  }

  /** Files that there were, up to so many. */
  async #count(baseline: Position, max: number): Promise<number> {
    const { agent, volume, catalog, breathe } = this.#parts
    let files = 0
    for await (const { version } of catalog.treeAt(agent, volume, ROOT, baseline)) {
      if (version.kind === 'file' && ++files >= max) break
      await breathe()
    }
    return files
  }

  /** Files of the one study that has lost most, where they are gone and no more; else none. */
  async #largestDeleted(record: Position, baseline: Position): Promise<number> {
    const { heads, breathe } = this.#parts
    const studies = new Map<string, number>()
    let gone = 0
    for (const { how, version } of this.#lost.values()) {
      if (how !== 'gone') continue
      gone += 1
      const study = heads.studyOf(version)
      if (study !== undefined) studies.set(study, (studies.get(study) ?? 0) + 1)
      await breathe()
    }
    const largest = Math.max(0, ...studies.values())
    return largest === 0 || (await this.#strangers(record, baseline, gone / 2)) ? 0 : largest
  }

  /** Whether so many files have come that are no DICOM: what was there may be in them. */
  async #strangers(until: Position, baseline: Position, count: number): Promise<boolean> {
    const { agent, volume, catalog, heads, breathe } = this.#parts
    const found = new Set<RelativePath>()
    for await (const record of catalog.summaries(agent, baseline, until)) {
      await breathe()
      if (record.kind !== 'put' || record.volume !== volume) continue
      const version = catalog.newest(agent, volume, record.path)?.version
      if (version?.kind !== 'file' || heads.isDicom(version) !== false) continue
      if ((await catalog.entryAt(agent, volume, record.path, baseline)) === undefined) found.add(record.path)
      if (found.size >= count) return true
    }
    return false
  }
}
