/**
 * The thread behind lease-warden.ts: sleeps while no capture thread works, else looks at their leases again and again.
 *
 * Invariant: it touches a descriptor only with F_GETLEASE and F_UNLCK. A number that was closed and opened again meanwhile
 * can so lose nothing but a lease, which its reader notices. It prevents the warden from ever harming a file.
 */
import { workerData } from 'node:worker_threads'
import { libc } from '../shared/libc.ts'
import { NO_LEASE, WARDEN, WARDEN_WORDS, WORDS_PER_THREAD } from './lease.ts'
import { stepForward } from './priority.ts'

/** Between two looks, while a capture thread works. */
const WARDEN_POLL_MS = 2

const words = new Int32Array(workerData as SharedArrayBuffer)

stepForward()
Atomics.store(words, WARDEN.isThere, 1)
Atomics.notify(words, WARDEN.isThere)
while (Atomics.load(words, WARDEN.isToEnd) === 0) {
  const wakeUps = Atomics.load(words, WARDEN.wakeUps)
  Atomics.wait(words, WARDEN.wakeUps, wakeUps, watch() ? WARDEN_POLL_MS : Number.POSITIVE_INFINITY)
}

/** Whether any thread works. */
function watch(): boolean {
  let isAnyAtWork = false
  for (let at = WARDEN_WORDS; at < words.length; at += WORDS_PER_THREAD) {
    if (Atomics.load(words, at) === 0) continue
    isAnyAtWork = true
    for (let slot = at + 1; slot < at + WORDS_PER_THREAD; slot++) {
      const fd = Atomics.load(words, slot)
      if (fd !== NO_LEASE && libc?.holdsReadLease(fd) === false) libc.releaseLease(fd)
    }
  }
  return isAnyAtWork
}
