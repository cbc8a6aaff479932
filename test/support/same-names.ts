/**
 * Loaded into a program before it begins: what it draws at random it draws again in its next run, thread by thread. So a file whose name
 * is drawn has the same name in each run, and a fault can be sent to it.
 */
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { threadId } from 'node:worker_threads'

let drawn = 0

/** Only what is asked for at once. */
function sameBytes(size: number): Buffer {
  drawn += 1
  return crypto.createHash('shake256', { outputLength: size }).update(`${threadId} ${drawn}`).digest()
}

Object.assign(crypto, { randomBytes: sameBytes })
syncBuiltinESMExports()
