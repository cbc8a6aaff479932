/**
 * Starting and ending of worker threads: the same from the sources (.ts) and from the built program (.js).
 *
 * Invariant: a thread's module stands beside this one and carries the same ending. It prevents a package that works in
 * its tests and cannot start a single thread once it is built. Options that the main program was started with, such as
 * `--eval`, are not a thread's.
 */
import { extname } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { Worker } from 'node:worker_threads'

/**
 * Of what a thread makes little lives on, and what it has from outside of the heap goes only when the small objects go that stand for it:
 * these are cleared away often. V8 keeps twice that for them in each thread, and the flag, where the launcher has given one, goes before `resourceLimits`.
 */
const SEMI_SPACE_MB = 1

export function startThread(name: string, workerData: unknown): Worker {
  setFlagsFromString(`--max-semi-space-size=${SEMI_SPACE_MB}`)
  return new Worker(new URL(`./${name}${extname(import.meta.filename)}`, import.meta.url), {
    workerData,
    execArgv: [],
    // Descriptors are opened in one thread and read in another: they do not belong to the thread.
    trackUnmanagedFds: false,
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
