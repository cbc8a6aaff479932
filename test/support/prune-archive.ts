/**
 * Prunes a data directory in a process of its own, so that it can be killed, or its disk can fail, at any step.
 *
 *     node prune-archive.ts DATA KEY-HEX
 *
 * What nothing keeps goes at once. Prints `pruned`, or the code of the error.
 */
import { join } from 'node:path'
import { checkedConfig } from '../../collector/config.ts'
import { withPruning } from '../../collector/pruning.ts'
import { asPacsimileError } from '../../shared/errors.ts'
import { silentLog } from '../../shared/log.ts'

const [, , dataDir = '', key = ''] = process.argv
const config = checkedConfig({ repository: join(dataDir, 'repository'), parity: 'off', retention: { all: '0h', quarantine: '0h' } })
try {
  const parts = { dataDir, config, dataKey: Buffer.from(key, 'hex'), log: silentLog }
  // The second one deletes what the first one left.
  for (let i = 0; i < 2; i++) await withPruning(parts, (pruning) => pruning.run())
  process.stdout.write('pruned')
} catch (error) {
  const { code, message } = asPacsimileError(error, 'Pruning')
  process.stdout.write(code)
  process.stderr.write(message)
}
