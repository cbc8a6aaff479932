/**
 * The edge of a capture thread: jobs in, chunks and outcomes out (capture-job.ts).
 *
 * Invariant: jobs are done in the order in which they come, and each has its outcome in the same order. It prevents a job
 * from being lost between two messages. A fault of ours ends the thread; the main thread starts another.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { digestOf } from '../shared/digest.ts'
import { errnoOf } from '../shared/errors.ts'
import { pathBuffer } from '../shared/path.ts'
import { Ancestry } from './ancestry.ts'
import type { CaptureMessage, CaptureThreadData, FetchJob, JobsMessage, Outcome } from './capture-job.ts'
import { ContentReader } from './content-reader.ts'
import { Examiner } from './examiner.ts'
import { absolutePath, type VolumeRoot } from './file-stat.ts'
import { Outbox } from './outbox.ts'
import { standBack } from './priority.ts'

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort
const { bytesInFlight } = workerData as CaptureThreadData
const outbox = new Outbox(port, bytesInFlight)
const reader = new ContentReader()

standBack()
port.on('message', (message: CaptureMessage) => {
  if (message === 'end') port.close()
  else work(message)
})

function work({ root, sizes, jobs }: JobsMessage): void {
  const examiner = new Examiner({ reader, outbox, root, sizes })
  for (const job of jobs) outbox.end(job.id, job.kind === 'examine' ? examiner.examine(job) : fetchChunk(root, job))
  outbox.flush()
}

/** Reads a chunk from the file that held it; its digest says whether it still does. */
function fetchChunk(root: VolumeRoot, job: FetchJob): Outcome {
  const plain = Buffer.allocUnsafe(job.chunk.length)
  try {
    if (new Ancestry(root).obstacleAbove(job.path) !== undefined) return { kind: 'fetched', found: false }
    const name = pathBuffer(absolutePath(root.directory, job.path))
    const fd = openSync(name, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      for (let length = 0; length < plain.length; ) {
        const read = readSync(fd, plain, length, plain.length - length, job.offset + length)
        if (read === 0) return { kind: 'fetched', found: false }
        length += read
      }
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return { kind: 'fetched', found: false }
  }
  if (digestOf(plain) !== job.chunk.digest) return { kind: 'fetched', found: false }
  outbox.ship(job.id, job.chunk.digest, plain, () => false)
  return { kind: 'fetched', found: true }
}
