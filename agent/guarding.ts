/**
 * Puts together what keeps one volume protected: its guard, its full scans, its coverage.
 *
 * Invariant: all of them speak of the same volume and end with the same signal. It prevents coverage from being claimed for a
 * volume whose guard has stopped.
 */
import type { HybridClock } from '../shared/clock.ts'
import { DIRTY_PATHS_MAX } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import type { AgentConfig } from './config.ts'
import { Coverage } from './coverage.ts'
import type { Epoch } from './epoch.ts'
import { Guard } from './guard.ts'
import type { Pins } from './pins.ts'
import type { Place } from './place.ts'
import type { Pursuit } from './pursuit.ts'
import type { Recorder } from './recorder.ts'
import type { Renames } from './renames.ts'
import { Rescans } from './rescans.ts'
import { type OpenGap, Rounds } from './rounds.ts'
import { Scanner } from './scanner.ts'
import type { Settle } from './settle.ts'
import type { State } from './state.ts'
import { Suspects } from './suspects.ts'
import type { Volume } from './volume.ts'
import type { VolumeRoots } from './volume-roots.ts'
import type { OpenWatcher } from './watch/watcher.ts'

/** For showing what becomes of more paths than may wait: then fewer may. */
const PATHS_VARIABLE = 'PACSIMILE_TEST_PATHS'

/** How many paths of a volume may wait to be looked at because of events. */
export function dirtyPathsMax(): number {
  return Number(process.env[PATHS_VARIABLE] ?? DIRTY_PATHS_MAX)
}

export interface GuardingParts {
  readonly config: AgentConfig
  readonly epoch: Epoch
  readonly openWatcher: OpenWatcher
  readonly clock: HybridClock
  readonly settle: Settle
  readonly pursuit: Pursuit
  readonly state: State
  readonly recorder: Recorder
  readonly pins: Pins
  readonly renames: Renames
  readonly roots: VolumeRoots
  /** Resolves when the journal knows every volume by its name and directory. */
  readonly volumesNoted: Promise<void>
  readonly lookAt: (place: Place) => void
  readonly log: Log
  readonly signal: AbortSignal
}

export function guardOf(parts: GuardingParts, volume: Volume, { acceptRoot, acceptEmpty }: AgentConfig['volume'][number]): Guard {
  const { config, openWatcher, clock, settle, pursuit, state, recorder, pins, renames, roots, volumesNoted, lookAt, log, signal } = parts
  const { name } = volume
  const shared = { settle, suspects: new Suspects(), rescans: new Rescans(), pursuit, state, volume, log }
  const scanner = new Scanner({ ...shared, renames })
  const everyMs = { 'best-effort': config.scan.everySeconds * 1000, 'complete': config.scan.reconcileSeconds * 1000 }
  const rounds = new Rounds({ ...shared, scanner, everyMs, recorder, clock, onVerified: () => coverage.verify() })
  const coverage: Coverage = new Coverage({
    volume,
    state,
    recorder,
    settled: (until) => guard.settled(until),
    lookAgain: () => {
      for (const { path } of volume.unreadable) lookAt({ volume: name, path })
    },
    isOwing: () => rounds.isOwing,
    proveByScan: () => guard.proveByScan(),
    now: () => clock.tick(),
  })
  const guard: Guard = new Guard({
    ...shared,
    roots,
    acceptRoot,
    acceptEmpty,
    openWatcher,
    openGap: openGapOf(parts, volume),
    noteMode: async () => {
      await volumesNoted
      const { directory: root, mode } = volume
      if (state.facts(name)?.mode !== mode) await recorder.note([{ kind: 'volume', volume: name, root, mode }])
    },
    rounds,
    coverage,
    pins,
    renames,
    scanner,
    signal,
  })
  return guard
}

/** What the journal does not know of the time before this start. */
function openGapOf({ epoch, state }: GuardingParts, { name }: Volume): OpenGap | undefined {
  const covered = state.facts(name)?.coveredUntil
  if (covered !== undefined) return { from: covered, cause: 'the agent was not running' }
  const before = state.coveredBefore(name)
  if (epoch.reason !== 'first') return { from: before ?? epoch.previousTime, cause: `a new epoch began (${epoch.reason})` }
  return before === undefined ? undefined : { from: before, cause: 'the agent was not running' }
}
