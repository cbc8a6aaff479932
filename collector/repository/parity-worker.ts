/**
 * The edge of a thread that makes the parity of one file: half a second of arithmetic for a pack, which must not hold up
 * whoever waits for an acknowledgement.
 *
 * Invariant: what gets parity is whole. It prevents damage from being sealed, and then copied as the final word on the file, over
 * what a copy has of it.
 */
import { readFileSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { FILE_HEADER_BYTES, isHeaderWhole } from './file-header.ts'
import { firstDamage } from './frame.ts'
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
const damage = isHeaderWhole(region) ? firstDamage(region, FILE_HEADER_BYTES) : 0
if (damage !== undefined) throw new Error(`${path} is damaged at byte ${damage}`)
parentPort.postMessage(
  Array.from(stripesOf(region, shape), (stripe) => encodeStripe(stripe)),
  [],
)
