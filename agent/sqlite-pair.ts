/**
 * SQLite databases in WAL mode and their logs, which are consistent only together. Nothing is recognised yet: both are
 * captured as files of their own.
 */
import type { RelativePath } from '../shared/path.ts'
import type { Beneath } from './beneath.ts'
import type { ExaminePairJob, Outcome } from './capture-job.ts'
import type { Workplace } from './file-capture.ts'

export function isDatabase(_head: Uint8Array): boolean {
  return false
}
export function baseOfLog(_beneath: Beneath, _path: RelativePath): RelativePath | undefined {
  return undefined
}
export function examinePair(_place: Workplace, _job: ExaminePairJob): Outcome {
  return { kind: 'busy' }
}
