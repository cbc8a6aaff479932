/**
 * Another attempt at a version that is held open and could not be recorded: where its file is now, and when to try.
 *
 * The kernel names a file below the new name of a directory as soon as that is renamed, the journal when the rename is
 * recorded. Invariant: a file that is still where a rename has brought it is not tried again before that is recorded. It
 * prevents its directories from being inferred, and then ended, with the file, by the record of the rename. One that somebody else has
 * open for writing is tried again for a while: it may only look so.
 */
import { fstatSync } from 'node:fs'
import type { VolumeRoot } from './file-stat.ts'
import type { Pin, Pins } from './pins.ts'
import type { Renames } from './renames.ts'
import { sleep } from './waiting.ts'
import { resolvePin } from './watch/pin-path.ts'

/** A version whose directory moves about is given up, or put into inferred ones, after so many attempts. */
export const PIN_ATTEMPTS_MAX = 4
/**
 * Before the second attempt; twice as long before each later one. The kernel tells of a close before it counts the writer off,
 * and whoever looked at the path instead could find it renamed or deleted.
 */
const PIN_PAUSE_MS = 2
/** Together a quarter of a second: a writer that closes may be kept waiting for the processor in its middle. */
const BUSY_ATTEMPTS_MAX = 7
/** Where a later version waits, whoever writes is still at it, and that version is the one to be had. */
const BUSY_ATTEMPTS_BEFORE_LATER_MAX = 4
/** A rename is recorded within this, or its directory is gone again. */
const RENAME_MS_MAX = 10_000
/** Looked at now and then, not at each step of a storm, in which many may wait. */
const RENAME_PAUSE_MS_MAX = 64

/** How long to wait after one more attempt that found the file open for writing, in ms; undefined where its path is to be looked at instead. */
export function pauseWhileBusy(pin: Pin, pins: Pick<Pins, 'hasLater'>): number | undefined {
  pin.busy += 1
  const most = pins.hasLater(pin) ? BUSY_ATTEMPTS_BEFORE_LATER_MAX : BUSY_ATTEMPTS_MAX
  return pin.busy <= most ? PIN_PAUSE_MS << (pin.busy - 1) : undefined
}

/** Resolves when it may be tried again; its path is then the one that its file has, or had last. `root`: undefined where the volume is lost. */
export async function placedAgain(pin: Pin, root: VolumeRoot | undefined, renames: Pick<Renames, 'isBelowTarget'>): Promise<void> {
  const limit = AbortSignal.timeout(RENAME_MS_MAX)
  for (let pauseMs = PIN_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, RENAME_PAUSE_MS_MAX)) {
    pin.path = (root === undefined ? undefined : resolvePin(pin.fd, root)) ?? pin.path
    // What is deleted may be so with its directory, whose end waits for this version.
    if (limit.aborted || fstatSync(pin.fd).nlink === 0 || !renames.isBelowTarget(pin)) return
    await sleep(pauseMs, limit)
  }
}
