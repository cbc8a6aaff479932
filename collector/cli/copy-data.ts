/** Asks the running collector about its copies; where none runs, works on its data directory. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { PacsimileError } from '../../shared/errors.ts'

export async function orOnData<Answer>(ask: () => Promise<Answer>, onData: () => Promise<Answer>): Promise<Answer> {
  try {
    return await ask()
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'collector-unreachable') throw error
    return onData()
  }
}

/** @throws not-found */
export async function dataDirectory(data: string): Promise<string> {
  const { configFile } = await import('../config.ts')
  const dataDir = resolve(data)
  if (!existsSync(configFile(dataDir))) throw new PacsimileError('not-found', `${data} is no collector's data directory`)
  return dataDir
}
