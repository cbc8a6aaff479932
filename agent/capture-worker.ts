/**
 * The edge of a capture thread: jobs in, chunks and outcomes out (capture-job.ts).
 *
 * Invariant: jobs are done in the order in which they come, and each has its outcome in the same order. It prevents a job
 * from being lost between two messages. A fault of ours ends the thread; the main thread starts another.
 */
import { readSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { digestOf } from '../shared/digest.ts'
import { errnoOf } from '../shared/errors.ts'
import type { Samples } from '../shared/sample-filter.ts'
import { forgetMemory } from '../shared/stored-form.ts'
import { Beneath, linuxCalls, openSpot } from './beneath.ts'
import type { CaptureJob, CaptureMessage, CaptureThreadData, FetchJob, JobsMessage, Outcome } from './capture-job.ts'
import { ContentReader } from './content-reader.ts'
import { Examiner } from './examiner.ts'
import type { Workplace } from './file-capture.ts'
import { Leases } from './lease.ts'
import { Outbox } from './outbox.ts'
import { PixelLayouts } from './pixel-layouts.ts'
import { standBack } from './priority.ts'
import { Reflinks } from './reflink.ts'
import { examinePair } from './sqlite-pair.ts'

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
/** Without work; a thread that takes its memory anew more often than that would feel it. */
const REST_MS = 10_000
const port = parentPort
const data = workerData as CaptureThreadData
const outbox = new Outbox(port, data.bytesInFlight)
const leases = new Leases(data.leases)
const reflinks = new Reflinks()
const reader = new ContentReader(reflinks)
const layouts = new PixelLayouts()

standBack()
/** By the time that it ends nobody has wanted anything for a while. */
const resting = setTimeout(rest, REST_MS).unref()
port.on('message', (message: CaptureMessage) => {
  if (message === 'end') port.close()
  else work(message)
  resting.refresh()
})

/** The host is the PACS's: what is read into and compressed into is not kept for the next file of tomorrow. */
function rest(): void {
  reader.rest()
  forgetMemory()
  globalThis.gc?.()
}

function work({ root, sizes, jobs }: JobsMessage): void {
  const beneath = new Beneath(root)
  const place: Workplace = { reader, reflinks, leases, outbox, root, sizes, beneath }
  const examiner = new Examiner(place)
  leases.beginWork()
  try {
    for (const job of jobs) {
      beneath.renew()
      outbox.end(job.id, outcomeOf(job, examiner, place))
    }
  } finally {
    leases.endWork()
    beneath.close()
  }
  outbox.flush()
}

function outcomeOf(job: CaptureJob, examiner: Examiner, place: Workplace): Outcome {
  switch (job.kind) {
    case 'examine':
      return examiner.examine(job)
    case 'examine-pair':
      return examinePair(place, job)
    case 'fetch':
      return fetchChunk(place.beneath, job)
  }
}

/** Reads a chunk from the file that held it; its digest says whether it still does. */
function fetchChunk(beneath: Beneath, job: FetchJob): Outcome {
  const plain = Buffer.allocUnsafe(job.chunk.length)
  let samples: Samples | undefined
  try {
    const spot = beneath.spot(job.path)
    if (spot.kind !== 'spot') return { kind: 'fetched', found: false }
    const fd = openSpot(spot)
    try {
      for (let length = 0; length < plain.length; ) {
        const read = readSync(fd, plain, length, plain.length - length, job.offset + length)
        if (read === 0) return { kind: 'fetched', found: false }
        length += read
      }
      samples = layouts.samplesAt(fd, job.offset)
    } finally {
      linuxCalls().close(fd)
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return { kind: 'fetched', found: false }
  }
  if (digestOf(plain) !== job.chunk.digest) return { kind: 'fetched', found: false }
  outbox.ship(job.id, job.chunk.digest, plain, samples, () => false)
  return { kind: 'fetched', found: true }
}
