/**
 * How far the kernel reads ahead in a mount: a setting of each mount, of which the usual value makes many small questions of one large file.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { errnoOf } from '../shared/errors.ts'

const READ_AHEAD_KB = 1024
/** Fields of /proc/self/mountinfo (proc(5)). */
const DEVICE_FIELD = 2
const DIRECTORY_FIELD = 4

/** Where it cannot be set, reading is slower, and right. Looks into no mount. */
export function letReadAhead(directory: string): void {
  try {
    const mounted = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' '))
      .findLast((fields) => fields[DIRECTORY_FIELD] === directory)
    const device = mounted?.[DEVICE_FIELD]
    if (device !== undefined) writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, `${READ_AHEAD_KB}`)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
}
