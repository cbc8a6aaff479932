/**
 * What may go, by the retention: which versions expire, and what their going makes of the packs.
 *
 * Two walks over all versions. The first finds what is needed; the second, of what nothing keeps, that of which something can go. Invariant:
 * a chunk that any version names which is kept is needed; nothing is dead that is too young for its record to have come. It
 * prevents one volume's retention from taking content that another one shares.
 */
import { millisecondsOf } from '../shared/clock.ts'
import type { Digest } from '../shared/digest.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { ChunkRef } from '../shared/version.ts'
import { absenceOfContent, putOf } from './absent-content.ts'
import type { Catalog } from './catalog.ts'
import { ranges } from './catalog-keys.ts'
import { readChunkPlace } from './catalog-values.ts'
import { CHUNKS_AT_ONCE, chunkPlaces } from './chunk-places.ts'
import { DigestSet } from './digest-set.ts'
import { type BindingRetention, KEEP_REASONS, Keeping, type KeepReason, Timeline } from './keeping.ts'
import { checkpointsOf, endOfLedger, gapsInCatalog, headsAt, holdsOf, ledgerEntries, type Retirement, retiredPacks } from './ledger-view.ts'
import { standingMarks } from './marks.ts'
import { PositionSet } from './position-set.ts'
import { RecordMarks } from './record-marks.ts'
import { FRAME_OVERHEAD_BYTES } from './repository/frame.ts'
import type { LedgerEntry } from './repository/ledger-entry.ts'
import type { Repository } from './repository/repository.ts'
import { decodePolicy, type RetentionPolicy, retentionOf } from './retention.ts'

export interface VolumePlan {
  readonly agent: Label
  readonly volume: Label
  /** Whether a retention is in force. */
  readonly isLimited: boolean
  /** Of files with content, that have not expired. */
  readonly versions: number
  readonly kept: Readonly<Record<KeepReason, number>>
  /** Versions that are not kept, and go. */
  readonly expiring: number
  /** Versions that are not kept, but have nothing that others do not need. */
  readonly shared: number
}

export interface PackPlan {
  readonly number: number
  readonly bytes: number
  /** Of chunks that are needed, in frames. */
  readonly liveBytes: number
}

export interface PrunePlan {
  readonly volumes: readonly VolumePlan[]
  /** Packs to be left: what is needed of them is stored once more before. */
  readonly packs: readonly PackPlan[]
  /** Packs that were left long enough ago, and whose files go. */
  readonly deletable: readonly { readonly number: number; readonly bytes: number }[]
  /** Left packs whose time has not come. */
  readonly quarantined: readonly { readonly number: number; readonly bytes: number }[]
  /** That nothing needs, in packs that stay: they are young, being written, or more of each is needed than not. */
  readonly deadBytes: number
  /** Why what is needed is not known for sure; then nothing is removed. */
  readonly doubts: readonly string[]
}

/** A plan with what it takes to carry it out. */
export interface WorkingPlan extends PrunePlan {
  /** Records whose content goes. */
  readonly expiring: ReadonlyMap<Label, PositionSet>
  /** What is kept needs these; what is named meanwhile is added. */
  readonly needed: DigestSet
}

export interface PlanParts {
  readonly catalog: Catalog
  readonly repository: Repository
  readonly policy: RetentionPolicy
  /** The collector's running time. */
  readonly nowMs: number
  /** What arrived within that may belong to records that have not; and so long a pack that was left stays. */
  readonly quarantineMs: number
}

/** A pack of which as much is dead is left. */
const DEAD_SHARE_MIN = 0.5

export async function planPrune(parts: PlanParts, needed = new DigestSet()): Promise<WorkingPlan> {
  const { catalog, repository, nowMs, quarantineMs } = parts
  const entries = [...(await Array.fromAsync(ledgerEntries(catalog))), tickNow(parts)]
  const volumes = await keepings(parts, entries)
  for (const { body } of await checkpointsOf(catalog))
    if (body.kind === 'checkpoint') for (const { chunks } of body.files) for (const { digest } of chunks) needed.add(digest)
  const kept = new Map<Keeping, Record<KeepReason, number>>()
  let unknown = 0
  for (const about of volumes) {
    const gathered = await gatherNeeded(catalog, about, needed)
    kept.set(about.keeping, gathered.counts)
    unknown += gathered.unknown
  }
  const expiring = new Map<Label, PositionSet>()
  const plans: VolumePlan[] = []
  for (const about of volumes) {
    const { agent, volume, isLimited, keeping } = about
    const counts = kept.get(keeping) ?? noCounts()
    const positions = expiring.get(agent) ?? new PositionSet()
    expiring.set(agent, positions)
    const gone = isLimited ? await gatherExpiring(catalog, about, needed, positions) : { versions: 0, shared: 0 }
    const versions = KEEP_REASONS.reduce((sum, reason) => sum + counts[reason], gone.versions + gone.shared)
    plans.push({ agent, volume, isLimited, versions, kept: counts, expiring: gone.versions, shared: gone.shared })
  }
  const retired = await retiredPacks(catalog)
  const youngest = newestPackAt(entries, nowMs - quarantineMs)
  const { packs, deadBytes, used } = await planPacks(catalog, repository, { retired, youngest, needed })
  const left = [...retired]
    .map(([number, retirement]) => ({ number, retirement, bytes: repository.sizeOf('pack', number) }))
    .filter(({ bytes }) => bytes > 0)
  const agesOf = new Map(entries.map(({ number, ageMs }) => [number, ageMs]))
  const isDue = ({ number, retirement }: (typeof left)[number]): boolean =>
    !used.has(number) && (retirement.deletedBy > 0 || (agesOf.get(retirement.retiredBy) ?? nowMs) <= nowMs - quarantineMs)
  const sized = ({ number, bytes }: (typeof left)[number]): { number: number; bytes: number } => ({ number, bytes })
  return {
    volumes: plans,
    packs,
    deletable: left.filter((pack) => isDue(pack)).map(sized),
    quarantined: left.filter((pack) => !isDue(pack)).map(sized),
    deadBytes,
    doubts: [
      ...(await gapsInCatalog(catalog)),
      ...(unknown === 0 ? [] : [`${unknown} chunks that versions name are in no pack that is known`]),
    ],
    expiring,
    needed,
  }
}

/** What is there now is a point as well, though no entry of the ledger says so yet. */
function tickNow({ catalog, repository, nowMs }: PlanParts): LedgerEntry {
  const { number, hash: previous } = endOfLedger(catalog)
  const newestPack = repository.numbers('pack').at(-1) ?? 0
  return { previous, number: number + 1, wallMs: Date.now(), ageMs: nowMs, body: { kind: 'tick', newestPack } }
}

interface VolumeKeeping {
  readonly agent: Label
  readonly volume: Label
  readonly isLimited: boolean
  readonly keeping: Keeping
  /** Of the agent. */
  readonly marks: RecordMarks
}

async function keepings({ catalog, policy, nowMs }: PlanParts, entries: readonly LedgerEntry[]): Promise<VolumeKeeping[]> {
  const holds = await holdsOf(catalog)
  const found: VolumeKeeping[] = []
  for (const agent of await catalog.agents()) {
    const end = catalog.chainEnd(agent) ?? { epoch: 0, seq: 0 }
    const marks = await RecordMarks.read(catalog, agent)
    const heads = [...(await headsAt(catalog, agent)), { number: entries.at(-1)?.number ?? 0, position: end }]
    const timeline = new Timeline(entries, heads, nowMs)
    const headBy = (number: number): Position => heads.findLast((head) => head.number <= number)?.position ?? { epoch: 0, seq: 0 }
    const policies = entries.flatMap(({ number, body }) => (body.kind === 'policy' ? [{ number, policy: decodePolicy(body.text) }] : []))
    for (const { name: volume } of await catalog.volumes(agent)) {
      const now = retentionOf(policy, agent, volume)
      // Each binds what began before the next one.
      const earlier = policies.slice(0, -1).flatMap((replaced, i): BindingRetention['earlier'] => {
        const worm = retentionOf(replaced.policy, agent, volume)?.worm ?? 0
        return worm === 0 ? [] : [{ worm, until: headBy(policies[i + 1]?.number ?? 0) }]
      })
      const keeping = new Keeping({
        timeline,
        marks: (await standingMarks(catalog, agent, volume)).map(({ position }) => position),
        retention: { now, earlier },
        holds: holds.filter((hold) => hold.agent === agent && hold.volume === volume),
        timeOf(position) {
          const time = catalog.summary(agent, position)?.time
          return time === undefined ? undefined : millisecondsOf(time)
        },
      })
      found.push({ agent, volume, isLimited: now !== undefined, keeping, marks })
    }
  }
  return found
}

/** A version, or the end of one, without what would make many of them large. */
interface Change {
  readonly position: Position
  readonly kind: 'whole' | 'torn' | 'other'
  readonly hasContent: boolean
}

interface Lived extends Change {
  readonly until: Position | undefined
}

/** The lives of one path after the other. */
async function* lives(catalog: Catalog, agent: Label, volume: Label): AsyncGenerator<{ path: RelativePath; changes: readonly Lived[] }> {
  let path: RelativePath | undefined
  let changes: Change[] = []
  const ended = (): Lived[] => changes.map((change, i) => ({ ...change, until: changes[i + 1]?.position }))
  for await (const { path: at, position, version } of catalog.allVersions(agent, volume)) {
    if (path !== undefined && at !== path) {
      yield { path, changes: ended() }
      changes = []
    }
    path = at
    const isFile = version?.kind === 'file'
    const kind = isFile ? (version.consistency === 'torn' ? 'torn' : 'whole') : 'other'
    changes.push({ position, kind, hasContent: isFile && version.chunks.length > 0 })
  }
  if (path !== undefined) yield { path, changes: ended() }
}

/** Why each of a path's versions is kept; of one that stands in for a torn one (`Catalog.lastWhole`), why that is. */
function reasons(
  catalog: Catalog,
  agent: Label,
  path: RelativePath,
  changes: readonly Lived[],
  keeping: Keeping,
): (KeepReason | undefined)[] {
  const found = changes.map(({ position: from, kind, until }) => (kind === 'other' ? undefined : keeping.why({ path, from, until })))
  for (const [i, { kind }] of changes.entries()) {
    if (found[i] === undefined || kind !== 'torn') continue
    for (let at = i - 1; at >= 0; at--) {
      const before = changes[at]
      if (before === undefined || before.kind === 'other') break
      if (before.kind === 'torn' || catalog.isLost(agent, before.position) || catalog.isExpired(agent, before.position)) continue
      found[at] ??= found[i]
      break
    }
  }
  return found
}

function chunksOf(catalog: Catalog, agent: Label, volume: Label, path: RelativePath, position: Position): readonly ChunkRef[] {
  const version = catalog.versionBy(agent, volume, path, position)
  return version?.kind === 'file' ? version.chunks : []
}

function noCounts(): Record<KeepReason, number> {
  return { current: 0, recent: 0, worm: 0, hourly: 0, daily: 0, monthly: 0, marked: 0, held: 0 }
}

async function gatherNeeded(
  catalog: Catalog,
  { agent, volume, keeping, marks }: VolumeKeeping,
  needed: DigestSet,
): Promise<{ counts: Record<KeepReason, number>; unknown: number }> {
  const counts = noCounts()
  let unknown = 0
  let named: { name: Digest; path: RelativePath; position: Position }[] = []
  const lookUp = async (): Promise<void> => {
    const places = chunkPlaces(
      catalog,
      named.map(({ name }) => name),
    )
    for (const { name, path, position } of named) {
      if (places.has(name)) continue
      // It may have been declared lost since the marks were read.
      if ((await absenceOfContent(catalog, agent, volume, { path, position })) === undefined) unknown += 1
    }
    named = []
  }
  for await (const { path, changes } of lives(catalog, agent, volume)) {
    const found = reasons(catalog, agent, path, changes, keeping)
    for (const [i, { hasContent, position }] of changes.entries()) {
      const reason = found[i]
      if (reason === undefined || !hasContent) continue
      const absence = await absenceOfContent(catalog, agent, volume, { path, position }, marks)
      if (absence === 'expired') continue
      counts[reason] += 1
      for (const { digest: name } of chunksOf(catalog, agent, volume, path, position)) {
        needed.add(name)
        if (absence === undefined) named.push({ name, path, position })
      }
      if (named.length >= CHUNKS_AT_ONCE) await lookUp()
    }
  }
  await lookUp()
  return { counts, unknown }
}

async function gatherExpiring(
  catalog: Catalog,
  { agent, volume, keeping, marks }: VolumeKeeping,
  needed: DigestSet,
  positions: PositionSet,
): Promise<{ versions: number; shared: number }> {
  let [expiring, shared] = [0, 0]
  for await (const { path, changes } of lives(catalog, agent, volume)) {
    const found = reasons(catalog, agent, path, changes, keeping)
    for (const [i, { hasContent, position }] of changes.entries()) {
      if (found[i] !== undefined || !hasContent) continue
      if ((await absenceOfContent(catalog, agent, volume, { path, position }, marks)) !== undefined) continue
      const isShared = chunksOf(catalog, agent, volume, path, position).every(({ digest }) => needed.has(digest))
      const put = isShared ? undefined : await putOf(catalog, agent, volume, { path, position }, marks)
      if (put === undefined) {
        shared += 1
        continue
      }
      expiring += 1
      positions.add(put)
    }
  }
  return { versions: expiring, shared }
}

/** The newest pack that was there at an age; 0 where no tick is as old. */
function newestPackAt(entries: readonly LedgerEntry[], ageMs: number): number {
  const tick = entries.findLast((entry) => entry.body.kind === 'tick' && entry.ageMs <= ageMs)
  return tick?.body.kind === 'tick' ? tick.body.newestPack : 0
}

async function planPacks(
  catalog: Catalog,
  repository: Repository,
  about: { readonly retired: ReadonlyMap<number, Retirement>; readonly youngest: number; readonly needed: DigestSet },
): Promise<{ packs: PackPlan[]; deadBytes: number; used: ReadonlySet<number> }> {
  const usage = new Map<number, { live: number; dead: number }>()
  for await (const [key, value] of catalog.entries(ranges.chunks)) {
    const place = readChunkPlace(value)
    const found = usage.get(place.file) ?? { live: 0, dead: 0 }
    usage.set(place.file, found)
    found[about.needed.has(key.toString('latin1', 1) as Digest) ? 'live' : 'dead'] += place.storedLength + FRAME_OVERHEAD_BYTES
  }
  const packs: PackPlan[] = []
  let deadBytes = 0
  const open = repository.end('pack').file
  const numbers = repository.numbers('pack')
  for (const number of numbers) {
    const { live, dead } = usage.get(number) ?? { live: 0, dead: 0 }
    // The pack that was the newest at that age may have grown since; and while the highest number stays, none is given out again.
    const isOld = number < about.youngest && number < open && number !== numbers.at(-1) && !about.retired.has(number)
    // What nothing leads to is dead as well: frames that were stored again elsewhere.
    const bytes = repository.sizeOf('pack', number)
    if (isOld && live <= bytes * (1 - DEAD_SHARE_MIN)) packs.push({ number, bytes, liveBytes: live })
    else deadBytes += dead
  }
  return { packs, deadBytes, used: new Set(usage.keys()) }
}
