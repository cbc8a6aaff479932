/**
 * The edge of a thread that makes the parity of one file: half a second of arithmetic for a pack, which must not hold up
 * whoever waits for an acknowledgement.
 */
import { readFileSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { encodeStripe, type ParityShape, stripesOf } from './parity.ts'

export interface ParityTask {
  readonly path: string
  /** From the beginning of the file. */
  readonly bytes: number
  readonly shape: ParityShape
}

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const { path, bytes, shape } = workerData as ParityTask
const region = readFileSync(path).subarray(0, bytes)
if (region.length < bytes) throw new Error(`${path} ends before byte ${bytes}`)
parentPort.postMessage(
  Array.from(stripesOf(region, shape), (stripe) => encodeStripe(stripe)),
  [],
)
