/**
 * Who a process is: asked of /proc while it lives, remembered for a moment.
 *
 * Invariant: what cannot be known any more is left out, and what is remembered is forgotten before its number can have been
 * given to another process. It prevents a change from being pinned on the wrong program.
 */
import { readlinkSync, statSync } from 'node:fs'
import { byteString } from '../../shared/path.ts'
import type { Writer } from '../../shared/version-extensions.ts'

/** Process numbers come round after tens of thousands; this is far less than that takes. */
const REMEMBERED_MS = 1000
const DELETED = ' (deleted)'

export class Writers {
  readonly #known = new Map<number, Writer | undefined>()
  #sinceMs = 0

  /** Undefined where nothing is known: the process has ended, or is of another PID namespace (pid 0). */
  writer(pid: number, nowMs: number): Writer | undefined {
    if (pid <= 0) return undefined
    if (nowMs - this.#sinceMs > REMEMBERED_MS) {
      this.#known.clear()
      this.#sinceMs = nowMs
    }
    if (!this.#known.has(pid)) this.#known.set(pid, ask(pid))
    return this.#known.get(pid)
  }
}

function ask(pid: number): Writer | undefined {
  try {
    const { uid } = statSync(`/proc/${pid}`)
    return { pid, uid, executable: executableOf(pid) }
  } catch {
    // It has ended since: its number alone says nothing.
    return undefined
  }
}

/** Empty where we may not ask, and of kernel threads. */
function executableOf(pid: number): string {
  try {
    const path = byteString(readlinkSync(`/proc/${pid}/exe`))
    return path.endsWith(DELETED) ? path.slice(0, -DELETED.length) : path
  } catch {
    return ''
  }
}
