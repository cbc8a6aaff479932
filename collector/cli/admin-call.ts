/**
 * Questions to the running collector of a data directory.
 */
import { join } from 'node:path'
import { callLocal } from '../../shared/local-api.ts'

/** @throws collector-unreachable, or what the collector throws */
export function askCollector(data: string, question: 'status' | 'volumes' | 'wait', body: object): Promise<unknown> {
  return callLocal(join(data, 'admin.sock'), question, body, { unreachable: 'collector-unreachable' })
}
