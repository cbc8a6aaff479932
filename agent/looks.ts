/**
 * What a look asks of a capture thread, and what its outcome means for the path's next look. Pure.
 *
 * Invariant: a look carries all that the thread needs to know of the past. It prevents a thread from asking back.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Digest } from '../shared/digest.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import type { CaptureRequest } from './capture.ts'
import type { Outcome, Side } from './capture-job.ts'
import { identityOf } from './file-stat.ts'
import type { Held } from './held.ts'
import type { Pin } from './pins.ts'
import type { Place } from './place.ts'
import type { Finding, Recorded } from './recorder.ts'
import type { Due, Origin, Settled } from './settle-entry.ts'
import type { Known } from './state.ts'

/** What a look rests on and what it has brought so far. */
export interface Basis extends Place {
  readonly known: Known | undefined
  readonly begun: Finding['begun']
  readonly pinned: Set<Digest>
  readonly takings: Promise<void>[]
}

export interface Found {
  readonly basis: Basis
  readonly outcome: Finding['outcome']
}

/** What SQLite appends to a database's name for its write-ahead log. */
const WAL_SUFFIX = '-wal'

export function basisOf({ volume, path }: Place, known: Known | undefined, begun: Finding['begun']): Basis {
  return { volume, path, known, begun, pinned: new Set(), takings: [] }
}

/** What a look has found, for the recorder; `isLast`: the version that is held open is not tried again. */
export function findingOf(look: Due, { basis, outcome }: Found, pin: { readonly isLast: boolean } | undefined): Finding {
  const { volume, path, known, begun, pinned } = basis
  const { writer, retries, origin } = look
  const base = { volume, path, outcome, knownSeq: known?.seq, knownInode: known?.version.inode, begun, pinned, hasWaited: false }
  return { ...base, pin, writer, retries, origin }
}

/** A look that others wait for waits for nothing; what it found to be gone ends its path alone, and not what has to wait beside it. */
export function alone({ isUrgent, path }: Due, outcome: Finding['outcome']): Finding['outcome'] {
  return isUrgent && outcome.kind === 'gone' ? { ...outcome, topmost: path } : outcome
}

/** For a version that is held open. */
export function pinLook({ volume, path, writer }: Pin): Due {
  return { volume, path, origin: 'event', isUrgent: false, asIs: false, isDeep: false, retries: 0, waitedFor: undefined, writer }
}

export function examineRequest(look: Due, known: Known | undefined, held: Held, pin: number | undefined): CaptureRequest {
  const { asIs, isDeep, origin } = look
  const wasStable = known?.version.kind === 'file' && known.version.consistency === 'stable'
  return { kind: 'examine', ...sideOf(look, known, held, origin), asIs, isDeep, wasStable, pin }
}

/** A database, and its write-ahead log. */
export function pairSides(volume: Label, base: RelativePath): [Place, Place] {
  return [
    { volume, path: base },
    { volume, path: walOf(base) },
  ]
}

/** The write-ahead log of a database at this path. */
export function walOf(base: RelativePath): RelativePath {
  return `${base}${WAL_SUFFIX}` as RelativePath
}

export function pairRequest(
  [base, wal]: readonly [Place, Place],
  known: readonly (Known | undefined)[],
  held: Held,
  origin: Origin,
): CaptureRequest {
  return { kind: 'examine-pair', base: sideOf(base, known[0], held, origin), wal: sideOf(wal, known[1], held, origin) }
}

function sideOf({ path }: Place, known: Known | undefined, held: Held, origin: Origin): Side {
  return {
    path,
    known: known === undefined ? undefined : identityOf(known),
    storedDigests: known === undefined ? '' : storedDigests(known),
    shipBytesMax: held.shipBytesMax(origin),
  }
}

/** The chunks of the last version, whose content is delivered or held already. */
function storedDigests({ version, isLost }: Known): ByteString {
  return version.kind === 'file' && !isLost ? version.chunks.map(({ digest }) => digest).join('') : ''
}

export function settledBy(outcome: Outcome, recorded: readonly Recorded[]): Settled {
  if (recorded.some(({ kind }) => kind === 'outdated')) return { kind: 'busy' }
  if (recorded.some(({ kind }) => kind === 'held')) return { kind: 'held' }
  switch (outcome.kind) {
    case 'still-open':
      return { kind: 'still-open' }
    case 'pair':
      // An open database is looked at again when events tell; the pace keeps a large one from being read without end.
      return recorded.some(({ kind }) => kind === 'recorded') ? { kind: 'captured-open', durationMs: outcome.durationMs } : { kind: 'done' }
    case 'version': {
      const isOpen = outcome.version.kind === 'file' && outcome.version.consistency !== 'stable'
      return isOpen ? { kind: 'captured-open', durationMs: outcome.durationMs } : { kind: 'captured' }
    }
    default:
      return { kind: 'done' }
  }
}
