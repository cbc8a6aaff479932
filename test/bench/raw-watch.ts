/**
 * The raw fanotify loop: marks a filesystem as the agent does, reads every event and drops it. What watching costs whoever
 * writes, with nothing done about it.
 *
 *     node raw-watch.ts DIRECTORY
 *
 * Prints `watching` when it does, reads until its input ends and nothing more waits, and prints the number of events as JSON.
 */
import { openSync, readSync } from 'node:fs'
import { markNames, openNameGroup, poll } from '../../agent/watch/fanotify-calls.ts'

const [, , directory = '.'] = process.argv
const STDIN = 0
const BUFFER_BYTES = 256 * 1024

const bytes = Buffer.alloc(BUFFER_BYTES)
const group = openNameGroup('modern', true)
markNames(group, 'modern', openSync(directory, 'r'))
process.stdout.write('watching\n')

let events = 0
for (let isOver = false; !isOver; ) {
  const [isReadable, isEnding] = poll([group, STDIN], -1)
  if (isReadable === true) events += read()
  else isOver = isEnding === true
}
process.stdout.write(`${JSON.stringify({ events })}\n`)

/** @returns how many events were read */
function read(): number {
  const length = readSync(group, bytes)
  let count = 0
  // Each begins with its own length.
  for (let at = 0; at < length; at += bytes.readUInt32LE(at)) count += 1
  return count
}
