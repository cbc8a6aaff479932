/**
 * What the supervisor of a long-running program is told, and how it asks it to stop.
 *
 * The first SIGTERM or SIGINT asks for an orderly stop; a later one ends the process at once, which is as safe as any
 * crash. Signals that come together are one: a terminal's Ctrl-C reaches the agent and its supervisor, which passes it on. Under systemd (NOTIFY_SOCKET) readiness, stopping and liveness are reported (sd_notify(3)).
 */
import { reasonOf } from './errors.ts'
import { libc } from './libc.ts'
import type { Log } from './log.ts'

/** Exit status of a process that was told twice to stop: 128 + SIGTERM. */
const STOPPED_AT_ONCE = 143
/** Signals that come within this time of the first are the same word of one person. */
const TOGETHER_MS = 500

/** Aborted by the first signal to stop. */
export function stopSignal(log: Log): AbortSignal {
  const stop = new AbortController()
  let toldMs = 0
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      if (stop.signal.aborted) {
        if (performance.now() - toldMs > TOGETHER_MS) exitAtOnce()
        return
      }
      toldMs = performance.now()
      log.info('stopping', { signal: name })
      notifySupervisor('STOPPING=1', log)
      stop.abort()
    })
  }
  return stop.signal
}

/** Not as `process.exit` does, which waits for threads: one that waits in the kernel, as for events or a disk, would keep the process for ever. */
function exitAtOnce(): never {
  libc?.exitAtOnce(STOPPED_AT_ONCE)
  process.exit(STOPPED_AT_ONCE)
}

/** Tells systemd, where it listens. A failure is logged: the program's work does not depend on it. */
export function notifySupervisor(message: string, log: Log): void {
  const socket = process.env['NOTIFY_SOCKET']
  if (socket === undefined || socket === '') return
  try {
    libc?.notify(socket, message)
  } catch (error) {
    log.warn('systemd could not be told', { message, reason: reasonOf(error) })
  }
}

/** How often systemd wants to hear that the program lives, in ms; undefined where it does not ask (sd_watchdog_enabled(3)). */
export function watchdogMs(): number | undefined {
  const microseconds = Number(process.env['WATCHDOG_USEC'])
  const isForUs = process.env['WATCHDOG_PID'] === undefined || process.env['WATCHDOG_PID'] === String(process.pid)
  return isForUs && microseconds > 0 ? microseconds / 2000 : undefined
}
