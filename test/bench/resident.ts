/**
 * The resident memory of a process while something happens: its greatest, by what it consists of (proc_pid_status(5)).
 */
import { readFileSync } from 'node:fs'

const MB = 1_000_000
const SAMPLE_MS = 50
const FIELD = { total: /^VmRSS:\s+(\d+) kB$/m, own: /^RssAnon:\s+(\d+) kB$/m } as const

export interface Resident {
  readonly bytes: number
  /** Without the files that are mapped: those pages the system takes when it needs them. */
  readonly ownBytes: number
}

function residentOf(pid: number): Resident {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  const bytes = (field: RegExp): number => Number(field.exec(status)?.[1]) * 1024
  return { bytes: bytes(FIELD.total), ownBytes: bytes(FIELD.own) }
}

/** The greatest of each while `act` goes on. */
export async function residentMax(pid: number, act: () => Promise<unknown>): Promise<Resident> {
  let max = residentOf(pid)
  const timer = setInterval(() => {
    const now = residentOf(pid)
    max = { bytes: Math.max(max.bytes, now.bytes), ownBytes: Math.max(max.ownBytes, now.ownBytes) }
  }, SAMPLE_MS)
  try {
    await act()
  } finally {
    clearInterval(timer)
  }
  return max
}

export function inMb({ bytes, ownBytes }: Resident): string {
  return `${(bytes / MB).toFixed(0)} MB (${(ownBytes / MB).toFixed(0)} without mapped files)`
}
