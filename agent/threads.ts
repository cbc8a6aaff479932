/**
 * Starting and ending of worker threads: the same from the sources (.ts) and from the built program (.js).
 *
 * Invariant: a thread's module stands beside this one and carries the same ending. It prevents a package that works in
 * its tests and cannot start a single thread once it is built. Options that the main program was started with, such as
 * `--eval`, are not a thread's.
 */
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'

/** A thread's short-lived objects are few: the default would keep tens of MB for them in each. */
const YOUNG_MB = 8

export function startThread(name: string, workerData: unknown, youngMb = YOUNG_MB): Worker {
  return new Worker(new URL(`./${name}${extname(import.meta.filename)}`, import.meta.url), {
    workerData,
    execArgv: [],
    // Descriptors are opened in one thread and read in another: they do not belong to the thread.
    trackUnmanagedFds: false,
    resourceLimits: { maxYoungGenerationSizeMb: youngMb },
  })
}

/** Not by `terminate`, not even after a time: a thread that is interrupted in native code, or while it loads some, ends the whole process. */
export async function endThread(worker: Worker, order: string): Promise<void> {
  // It may have ended already.
  if (worker.threadId < 0) return
  await new Promise((resolve) => {
    worker.once('exit', resolve)
    worker.postMessage(order, [])
  })
}
