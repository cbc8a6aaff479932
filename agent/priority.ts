/**
 * How far the agent stands back behind the PACS: nice for its processor time, the idle class for the disk reads of its
 * capture and scan threads.
 *
 * Linux gives both to threads, not to processes: each thread lowers itself when it starts. The main thread stays in the
 * disk's normal class, because what waits for the journal is little and holds up everything else.
 * Invariant: a thread that makes somebody else wait, as the holder of a lease does, reads in the normal class for as long as
 * it does. It prevents priority inversion: a writer of the PACS that waits for a reader that waits for all other writers.
 */
import { getPriority, setPriority } from 'node:os'
import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads'
import koffi from 'koffi'

export const PRIORITIES = ['idle', 'normal'] as const
export type Priority = (typeof PRIORITIES)[number]

const KEY = 'pacsimile.priority'
const MAIN_NICE = 5
const WORKER_NICE = 10
const URGENT_NICE = -10

/** ioprio_set(2), linux/ioprio.h: the class is in the bits above 13. */
const SYSCALL: Partial<Record<NodeJS.Architecture, number>> = { x64: 251, arm64: 30 }
const WHO_PROCESS = 1
const IDLE_CLASS = 3 << 13
/** The last of the class in which everybody is who asked for nothing. */
const LAST_OF_NORMAL = (2 << 13) | 7

type SetIoPriority = (priority: number) => void

/** In the main thread, before any other is started. */
export function choosePriority(priority: Priority): void {
  setEnvironmentData(KEY, priority)
  if (priority === 'idle') beNicer(MAIN_NICE)
}

/** In a thread whose work can wait, when it starts. */
export function standBack(): void {
  if (getEnvironmentData(KEY) !== 'idle') return
  beNicer(WORKER_NICE)
  setIoPriority = openSetIoPriority()
  setIoPriority?.(IDLE_CLASS)
}

/** In a thread for which others wait, and which does next to nothing, when it starts. */
export function stepForward(): void {
  try {
    setPriority(0, URGENT_NICE)
  } catch {
    // Without the right to it (RLIMIT_NICE, CAP_SYS_NICE) it waits for its turn like everybody.
  }
}

/** What is read while somebody waits for it. */
export function holdingUp<Result>(read: () => Result): Result {
  if (setIoPriority === undefined) return read()
  setIoPriority(LAST_OF_NORMAL)
  try {
    return read()
  } finally {
    setIoPriority(IDLE_CLASS)
  }
}

/** Undefined in a thread that did not stand back. */
let setIoPriority: SetIoPriority | undefined

/** Of the calling thread; 0 stands for it. Whoever started the agent may have been stricter. */
function beNicer(nice: number): void {
  if (getPriority(0) < nice) setPriority(0, nice)
}

function openSetIoPriority(): SetIoPriority | undefined {
  const number = SYSCALL[process.arch]
  if (process.platform !== 'linux' || number === undefined) return undefined
  const syscall = koffi.load(null).func('long syscall(long number, long which, long who, long priority)')
  // Where a sandbox forbids it, the agent works as well, only less politely.
  return (priority) => void syscall(number, WHO_PROCESS, 0, priority)
}
