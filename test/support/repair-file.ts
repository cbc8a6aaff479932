/**
 * Repairs a pack in a process of its own, so that it can be killed, or its disk can fail, at any step.
 *
 *     node repair-file.ts PATH
 *
 * Prints `repaired`, `nothing`, or the code of the error.
 */
import { createSecretKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { repairFile } from '../../collector/repository/file-repair.ts'
import { DEFAULT_PARITY, encodeStripe, stripesOf } from '../../collector/repository/parity.ts'
import { PacsimileError } from '../../shared/errors.ts'

const [, , path = ''] = process.argv
const identity = { kind: 'pack', repository: '00'.repeat(16), number: 1 } as const
try {
  const repair = await repairFile(path, identity, createSecretKey(Buffer.alloc(32, 9)), (of, bytes) =>
    Promise.resolve(Array.from(stripesOf(readFileSync(of).subarray(0, bytes), DEFAULT_PARITY), encodeStripe)),
  )
  process.stdout.write(repair === undefined ? 'nothing' : 'repaired')
} catch (error) {
  if (!(error instanceof PacsimileError)) throw error
  process.stdout.write(error.code)
}
