/**
 * Opens the collector's catalog so that it can be believed: one that does not open, or that has lost something in its
 * middle, is set aside and folded anew from the repository.
 *
 * LevelDB passes over a damaged part of its log without a word, and what was written after it survives. Invariant: of every
 * epoch, the catalog that this returns has every record up to its end. It prevents a restore that lacks files because an
 * index, which is not the truth, has lost them.
 */
import { existsSync, renameSync } from 'node:fs'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { Catalog } from './catalog.ts'

/** @throws locked, io */
export async function openCatalog(directory: string, log: Log): Promise<Catalog> {
  let why: string
  try {
    const catalog = await Catalog.open(directory)
    const hole = await catalog.findHole()
    if (hole === undefined) return catalog
    await catalog.close()
    why = hole
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'locked') throw error
    why = asPacsimileError(error, 'Opening it').message
  }
  const aside = `${directory}.damaged-${Date.now()}`
  log.error('the catalog is damaged; it is set aside and made anew from the repository', { reason: why, aside })
  try {
    if (existsSync(directory)) renameSync(directory, aside)
  } catch (error) {
    throw asPacsimileError(error, `Setting aside ${directory}`)
  }
  return Catalog.open(directory)
}
