/**
 * Why a path is not there, said with what is: the nearest directory that existed then, and a name in it that is much like
 * the one that was typed.
 *
 * Invariant: looking for it reads a bounded part of the tree. It prevents a typing error from costing a walk over 10^7 files.
 */
import { PacsimileError } from '../../shared/errors.ts'
import { childOf, nameOf, parentOf, type RelativePath } from '../../shared/path.ts'
import type { Position } from '../../shared/record.ts'
import type { HistorySource } from '../history-source.ts'
import { showTarget, type Target } from './target.ts'

/** Entries below the nearest directory that are looked at. */
const LOOKED_AT_MAX = 20_000

export async function absenceOf(source: HistorySource, place: Target, at: Position): Promise<PacsimileError> {
  const nearest = await nearestAbove(source, place, at)
  const similar = nearest === undefined ? undefined : await similarTo(source, place, nearest, at)
  const missing = `${showTarget(place)} did not exist at that moment`
  const instead = similar ?? (nearest === '' ? undefined : nearest)
  const hint = instead === undefined ? '' : `; ${showTarget({ ...place, path: instead })} did`
  return new PacsimileError('not-found', `${missing}${hint}`)
}

async function nearestAbove(source: HistorySource, place: Target, at: Position): Promise<RelativePath | undefined> {
  for (let path = parentOf(place.path); path !== undefined; path = parentOf(path)) {
    for await (const entry of source.tree(place.agent, place.volume, path, at, 'directory')) return entry.path
  }
  return undefined
}

/** The path with its first missing name replaced by the most similar one that is there. */
async function similarTo(source: HistorySource, place: Target, directory: RelativePath, at: Position): Promise<RelativePath | undefined> {
  const [wanted = ''] = (directory === '' ? place.path : place.path.slice(directory.length + 1)).split('/')
  let best: { name: string; distance: number } | undefined
  let looked = 0
  for await (const { path } of source.tree(place.agent, place.volume, directory, at, 'directory')) {
    if (++looked > LOOKED_AT_MAX) break
    if (parentOf(path) !== directory) continue
    const name = nameOf(path)
    const distance = editDistance(wanted, name)
    if (distance <= Math.max(1, wanted.length / 4) && (best === undefined || distance < best.distance)) best = { name, distance }
  }
  return best === undefined ? undefined : childOf(directory, best.name)
}

/** Characters to insert, delete or replace (Levenshtein). */
export function editDistance(from: string, to: string): number {
  let above = Array.from({ length: to.length + 1 }, (_, i) => i)
  for (let i = 1; i <= from.length; i++) {
    const row = [i]
    for (let j = 1; j <= to.length; j++) {
      const replaced = (above[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1)
      row.push(Math.min(replaced, (above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1))
    }
    above = row
  }
  return above[to.length] ?? 0
}
