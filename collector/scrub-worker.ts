/**
 * The edge of the scrubbing thread: files in, what became of them out, one after the other (scrub-thread.ts).
 *
 * Invariant: every file that comes has one answer. It prevents a scrub that waits for ever on the file that it stumbled over.
 */
import { createSecretKey } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import { asPacsimileError, type ErrorCode } from '../shared/errors.ts'
import type { FrameFileIdentity } from './repository/file-header.ts'
import { type ScrubbedFile, type ScrubOptions, scrubFile } from './scrub-file.ts'

export interface ScrubThreadData extends ScrubOptions {
  readonly dataKey: Uint8Array
}

export interface ScrubTask {
  readonly path: string
  readonly identity: FrameFileIdentity
  readonly repairs: boolean
}

/** `end` asks the thread to end, whatever it is at. */
export type ScrubOrder = ScrubTask | 'end'

export type ScrubAnswer = { readonly scrubbed: ScrubbedFile } | { readonly code: ErrorCode; readonly message: string }

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort
const { dataKey, ...options } = workerData as ScrubThreadData
const key = createSecretKey(dataKey)

port.on('message', (order: ScrubOrder) => {
  // Of this thread, and between two calls of native code: what is cut short is as after kill -9.
  if (order === 'end') process.exit()
  const { path, identity, repairs } = order
  const answer = (word: ScrubAnswer): void => port.postMessage(word, [])
  scrubFile(path, identity, key, options, repairs).then(
    (scrubbed) => answer({ scrubbed }),
    (error: unknown) => {
      const { code, message } = asPacsimileError(error, `Scrubbing ${path}`)
      answer({ code, message })
    },
  )
})
