/**
 * A volume of the replica that does not follow: does with it what its standing says, and goes on with that after a crash.
 *
 * Each piece of work is known by the standing before it begins, and may be done again from its beginning. Invariant: a volume follows
 * again only when its files are where those of the others are, between two rounds, and what may have been ahead of that is behind it.
 * It prevents a volume that was stopped for a day from lacking that day.
 */
import { makeDirectory } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import { comparePositions, type Position, type RecordSummary } from '../shared/record.ts'
import { type BranchEntry, freshName, requireBranch, writeBranch } from './branch.ts'
import { keepEntries } from './branch-keep.ts'
import type { Catalog } from './catalog.ts'
import type { DriftWork } from './drift.ts'
import type { Materializer } from './materialize.ts'
import { ReplicaMoment } from './replica-moment.ts'
import type { ReplicaProblems } from './replica-problems.ts'
import type { ReplicaStandings, Stop } from './replica-standing.ts'
import type { ReplicaVolume } from './replica-volume.ts'

export interface StoppedParts {
  readonly agent: Label
  readonly volume: Label
  readonly standings: ReplicaStandings
  readonly catalog: Catalog
  readonly problems: ReplicaProblems
  readonly log: Log
  /** Directory of the files. */
  readonly root: string
  /** Directory of a failover's branch. */
  readonly branchOf: (name: string) => string
  readonly drift: DriftWork | undefined
  readonly openFiles: () => Materializer
  readonly openVolume: () => ReplicaVolume
  /** Everything up to here is in the files of the volumes that follow. */
  readonly applied: () => Position
  /** Does something while no round is under way. */
  readonly between: <T>(act: () => T) => Promise<T>
  /** Resolves when somebody got further, or after a while. */
  readonly progress: () => Promise<void>
  readonly handOver: (volume: ReplicaVolume) => void
  /** Makes durable what was written. */
  readonly sync: () => Promise<void>
  readonly breathe: () => Promise<void>
  /** Whether nothing more is to be applied before it is stopped. */
  readonly isHeldBack: () => boolean
  /** Whether what is on disk is not known any more. */
  readonly isStale: () => boolean
}

/** Records taken in one round. */
const ROUND_RECORDS = 2000
/** How far it has come is made durable at most this often. */
const DURABLE_MS = 1000

export class StoppedVolume {
  readonly #parts: StoppedParts
  #opened: ReplicaVolume | undefined
  /** Everything up to here is in the files, perhaps not durably. */
  #at: Position | undefined
  #durableMs = 0

  constructor(parts: StoppedParts) {
    this.#parts = parts
  }

  /** Until nothing is to be done before somebody decides. @throws when the disk fails, or it is time to stop */
  async work(): Promise<void> {
    try {
      while (!this.#parts.isStale()) {
        const { stop } = this.#parts.standings.of(this.#parts.agent, this.#parts.volume)
        switch (stop?.phase) {
          case 'rewinding':
          case 'freezing':
            await this.#toMoment(stop)
            break
          case 'checking':
            await this.#check(stop)
            break
          case 'closing':
            await this.#close(stop)
            break
          case 'catching-up':
            if (await this.#catchUp(stop)) return
            break
          default:
            return
        }
      }
    } finally {
      this.#opened?.close()
    }
  }

  async #toMoment(stop: Stop): Promise<void> {
    const { agent, volume, openFiles, sync, log } = this.#parts
    const to = stop.to ?? stop.at
    this.#forgetOpened()
    const files = openFiles()
    try {
      const moment = new ReplicaMoment({ ...this.#parts, files, at: to })
      if (stop.isKnown) await moment.makeTouched(earlier(stop.at, to), later(stop.head, to))
      else await moment.makeAll()
      await sync()
    } finally {
      files.close()
    }
    const phase = stop.phase === 'rewinding' ? 'paused' : 'failover'
    this.#set({ ...stop, phase, at: to, head: to, isKnown: true, to: undefined })
    log.warn(phase === 'paused' ? 'the replica of a volume was rewound' : 'the replica of a volume is in use', { agent, volume, ...to })
  }

  /** Looks at the suspects while nothing is written. What is wrong is listed before it is put aside. */
  async #check(stop: Stop): Promise<void> {
    const { agent, volume, openFiles, drift, log } = this.#parts
    const files = openFiles()
    let entries: readonly BranchEntry[] = []
    try {
      if (stop.isKnown) {
        await new ReplicaMoment({ ...this.#parts, files, at: stop.head }).makeTouched(stop.at, stop.head)
        entries = (await drift?.of(agent, volume, stop.head)) ?? []
      }
    } finally {
      files.close()
    }
    const at = stop.isKnown ? stop.head : stop.at
    if (entries.length === 0 || drift === undefined) return this.#set({ ...stop, at, phase: 'catching-up', reason: '' })
    const name = freshName(drift.directoryOf(agent, volume, ''))
    const directory = drift.directoryOf(agent, volume, name)
    if (!drift.hasRoomFor(agent, volume, entries)) {
      for (const { path } of entries)
        this.#parts.problems.note(agent, volume, path, 'others wrote here, and there is no room to keep that aside')
      log.error('others wrote into the replica, and there is no room to keep it aside', { agent, volume, paths: entries.length })
      return this.#set({ ...stop, at, phase: 'catching-up', reason: '' })
    }
    makeDirectory(directory)
    const endedMs = Date.now()
    writeBranch(directory, { agent, volume, at, sinceMs: stop.sinceMs, endedMs, disposition: 'discarded', entries: [...entries] })
    this.#set({ ...stop, at, head: at, phase: 'closing', branch: name, isDrift: true })
    log.error('others wrote into the replica: it is put aside and repaired', { agent, volume, paths: entries.length, directory })
  }

  /** What others wrote is in a branch: its paths are made what they were. */
  async #close(stop: Stop): Promise<void> {
    const { agent, volume, openFiles, sync, branchOf, drift, log } = this.#parts
    const isDrift = stop.isDrift === true
    const name = stop.branch ?? ''
    const directory = isDrift && drift !== undefined ? drift.directoryOf(agent, volume, name) : branchOf(name)
    const branch = requireBranch(directory)
    if (isDrift) keepEntries(branch.entries, this.#parts.root, directory)
    const files = openFiles()
    try {
      const moment = new ReplicaMoment({ ...this.#parts, files, at: stop.at })
      const isDirectory = ({ before, after }: BranchEntry): boolean => before?.kind === 'directory' && after?.kind === 'directory'
      const [directories, others] = [branch.entries.filter(isDirectory), branch.entries.filter((entry) => !isDirectory(entry))]
      if (stop.isKnown) {
        const pathsOf = (entries: readonly BranchEntry[]): RelativePath[] => entries.map(({ path }) => path)
        await moment.makeThese(pathsOf(directories), pathsOf(others))
      } else {
        await moment.makeAll()
      }
      await sync()
    } finally {
      files.close()
    }
    // What a mass change had stopped before goes on only when somebody decides about that.
    const phase = stop.clean === undefined ? 'catching-up' : 'paused'
    this.#set({
      ...stop,
      head: stop.at,
      phase,
      isKnown: true,
      branch: undefined,
      isDrift: undefined,
      reason: phase === 'paused' ? stop.reason : '',
    })
    log.info(isDrift ? 'the replica is what it was' : 'a failover has ended', {
      agent,
      volume,
      branch: stop.branch,
      paths: branch.entries.length,
    })
  }

  /** @returns whether it follows again */
  async #catchUp(stop: Stop): Promise<boolean> {
    if (this.#parts.isHeldBack()) {
      await this.#parts.progress()
      return false
    }
    const opened = this.#opened ?? this.#parts.openVolume()
    this.#opened = opened
    if (!stop.isKnown) {
      const applied = this.#parts.applied()
      await opened.compare(applied)
      await this.#reach(opened, applied, true)
      return false
    }
    const at = this.#at ?? stop.at
    const applied = this.#parts.applied()
    if (comparePositions(at, applied) >= 0) {
      await this.#reach(opened, at, true)
      if (await this.#parts.between(() => this.#join(opened, at))) return true
      await this.#parts.progress()
      return false
    }
    const records: RecordSummary[] = []
    let last = at
    let count = 0
    for await (const record of this.#parts.catalog.summaries(this.#parts.agent, at, applied)) {
      if (record.kind !== 'epoch' && record.volume === this.#parts.volume) records.push(record)
      last = { epoch: record.epoch, seq: record.seq }
      if (++count >= ROUND_RECORDS) break
    }
    if (records.length > 0) await opened.apply(records, { applied: at, until: last, trusted: false })
    await this.#reach(opened, count < ROUND_RECORDS ? applied : last, false)
    return false
  }

  /** The files hold everything up to there. Where somebody stopped it meanwhile, they hold what the journal says at most. */
  async #reach(opened: ReplicaVolume, at: Position, isUrgent: boolean): Promise<void> {
    const { agent, volume, standings, catalog, sync } = this.#parts
    const { stop } = standings.of(agent, volume)
    if (stop === undefined) return
    if (stop.phase !== 'catching-up') {
      const head = catalog.chainEnd(agent) ?? stop.head
      this.#set({ ...stop, head: later(stop.head, { epoch: head.epoch, seq: head.seq }) })
      this.#forgetOpened()
      return
    }
    this.#at = at
    const isDurable = stop.isKnown && comparePositions(stop.at, at) === 0
    if (isDurable || (!isUrgent && performance.now() - this.#durableMs < DURABLE_MS)) return
    await sync()
    this.#durableMs = performance.now()
    this.#set({ ...stop, at, isKnown: true })
  }

  #join(opened: ReplicaVolume, at: Position): boolean {
    const { agent, volume, standings, applied, handOver, log } = this.#parts
    const { stop } = standings.of(agent, volume)
    if (stop?.phase !== 'catching-up' || comparePositions(at, applied()) !== 0) return false
    // Files may be ahead up to there, and nobody knows which.
    if (comparePositions(at, stop.head) < 0) return false
    this.#set(undefined)
    this.#opened = undefined
    handOver(opened)
    log.info('the replica of a volume follows again', { agent, volume })
    return true
  }

  #forgetOpened(): void {
    this.#opened?.close()
    this.#opened = undefined
    this.#at = undefined
  }

  #set(stop: Stop | undefined): void {
    this.#parts.standings.set(this.#parts.agent, this.#parts.volume, { stop })
  }
}

function earlier(a: Position, b: Position): Position {
  return comparePositions(a, b) < 0 ? a : b
}

function later(a: Position, b: Position): Position {
  return comparePositions(a, b) > 0 ? a : b
}
