/**
 * What the collector's repository laid down for its agents, kept for when the collector is away.
 *
 * Invariant: chunks are cut by the sizes of the repository that will hold them. It prevents a restarted agent without a
 * connection from cutting otherwise, so that everything it captures would be stored a second time.
 */
import { z } from 'zod'
import type { ChunkSizes } from '../shared/chunker.ts'
import { readIfPresent, writeFileDurably } from '../shared/files.ts'

export interface Terms {
  readonly repository: string
  readonly chunkSizes: ChunkSizes
}

const size = z.number().int().positive()
const TERMS = z.object({ repository: z.string(), chunkSizes: z.object({ min: size, average: size, max: size }) })

/** Undefined before the first connection, or where the file is damaged: the next welcome tells them again. */
export function readTerms(file: string): Terms | undefined {
  const bytes = readIfPresent(file)
  if (bytes === undefined) return undefined
  try {
    return TERMS.parse(JSON.parse(bytes.toString('utf8')))
  } catch {
    return undefined
  }
}

export function writeTerms(file: string, terms: Terms): void {
  writeFileDurably(file, `${JSON.stringify(terms)}\n`)
}
