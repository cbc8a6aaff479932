/** What the collector is told of a volume: why it is as it is, and what of it has decayed. */
import type { VolumeReport } from '../shared/wire.ts'
import type { Volume } from './volume.ts'

const REASON_MAX = 2000

export function volumeReport({ name, mode, reason, phase, rotten }: Volume): VolumeReport {
  const decayed = `${rotten.length} of its files are not what was captured, though nobody wrote to them`
  const reasons = [reason, rotten.length === 0 ? '' : decayed].filter((text) => text !== '')
  return { name, mode, reason: reasons.join('; ').slice(0, REASON_MAX), state: phase }
}
