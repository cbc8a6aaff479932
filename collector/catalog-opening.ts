/**
 * Opens the collector's catalog so that it can be believed: one that does not open, or that has lost something in its
 * middle, is set aside and folded anew from the repository.
 *
 * LevelDB passes over a damaged part of its log without a word, and what was written after it survives. Invariant: the catalog that this
 * returns was left out nothing of by LevelDB, and has of every epoch every record up to its end. It prevents a restore that lacks files because an
 * index, which is not the truth, has lost them.
 */
import { existsSync, renameSync, rmSync } from 'node:fs'
import { asPacsimileError, type ErrorCode, reasonOf } from '../shared/errors.ts'
import { readIfPresent, removeTree, writeFileDurably } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import { Catalog } from './catalog.ts'
import { keys, POSITION_BYTES, ranges, readPosition } from './catalog-keys.ts'
import { faultOfLogs } from './catalog-log.ts'

/** @returns whether the directory holds the files of a catalog now; else it is not there */
export type MakeFiles = (directory: string) => boolean

/** Read ahead, of keys. */
const KEYS_AT_ONCE = 4096
const READ_BYTES = 256 << 10
/** What the system refuses says nothing about the files. */
const SYSTEMS_FAULTS = new Set<ErrorCode>(['locked', 'space', 'io'])

/** `make` may make the files of a catalog where there are none; `openTables` as for `Catalog.open`. @throws locked, io, space */
export async function openCatalog(directory: string, log: Log, make: MakeFiles = () => false, openTables?: number): Promise<Catalog> {
  const catalog = await openOrMake(directory, log, make, openTables)
  try {
    clearLeftovers(directory)
  } catch (error) {
    log.warn('what was left beside the catalog takes room still', { reason: reasonOf(error) })
  }
  return catalog
}

/** Removes what a checkpoint or a rebuild leaves that is killed; whoever calls it has the lock. @throws io */
export function clearLeftovers(directory: string): void {
  for (const suffix of ['partial', 'links', 'equal']) removeTree(`${directory}.${suffix}`)
}

async function openOrMake(directory: string, log: Log, make: MakeFiles, openTables: number | undefined): Promise<Catalog> {
  const distrusted = readIfPresent(distrustFile(directory))?.toString('utf8')
  if (!existsSync(directory)) return (await tryMaking(directory, make, openTables)) ?? Catalog.open(directory, openTables)
  const opened = distrusted ?? (await tryOpening(directory, openTables))
  if (opened instanceof Catalog) return opened
  const aside = `${directory}.damaged-${Date.now()}`
  log.error('the catalog is damaged; it is set aside and made anew from the repository', { reason: opened, aside })
  try {
    renameSync(directory, aside)
    rmSync(distrustFile(directory), { force: true })
  } catch (error) {
    throw asPacsimileError(error, `Setting aside ${directory}`)
  }
  return (await tryMaking(directory, make, openTables)) ?? Catalog.open(directory, openTables)
}

/** The next time that the catalog is opened it is set aside, whatever it looks like. @throws io, space */
export function distrust(directory: string, reason: string): void {
  writeFileDurably(distrustFile(directory), reason)
}

function distrustFile(directory: string): string {
  return `${directory}.distrusted`
}

/** An older catalog, where its files can be had and make one. @throws io, space */
export async function tryMaking(directory: string, make: MakeFiles, openTables?: number): Promise<Catalog | undefined> {
  if (!make(directory)) return undefined
  const made = await tryOpening(directory, openTables)
  if (made instanceof Catalog) return made
  removeTree(directory)
  return undefined
}

/** @returns the catalog, or what is wrong with its files @throws what is no fault of its files: they are right as they are */
async function tryOpening(directory: string, openTables?: number): Promise<Catalog | string> {
  let catalog: Catalog | undefined
  try {
    const fault = faultOfLogs(directory)
    if (fault !== undefined) return fault
    catalog = await Catalog.open(directory, openTables)
    const hole = await findHole(catalog)
    if (hole === undefined) return catalog
    await catalog.close()
    return hole
  } catch (error) {
    await catalog?.close()
    return faultOfFiles(error)
  }
}

/** Why the catalog is not a fold of the repository: a record before some agent's end that it does not have. */
async function findHole(catalog: Catalog): Promise<string | undefined> {
  for (const agent of await catalog.agents()) {
    const hole = await findHoleOf(agent, catalog)
    if (hole !== undefined) return hole
  }
  return undefined
}

/** Every record is passed, each time that a collector starts: by key alone, and without a step of a generator for each. */
async function findHoleOf(agent: Label, catalog: Catalog): Promise<string | undefined> {
  let last: Position | undefined
  const cursor = catalog.keyCursor(ranges.allSummaries(agent), { batch: KEYS_AT_ONCE, readBytes: READ_BYTES })
  try {
    for (let found = await cursor.next(); found.length > 0; found = await cursor.next())
      for (const [key] of found) {
        const position = readPosition(key, key.length - POSITION_BYTES)
        const isNext = last !== undefined && position.epoch === last.epoch ? position.seq === last.seq + 1 : position.seq === 1
        // Where the repository itself lacks what was before, the catalog lacks it rightly.
        if (!isNext && catalog.get(keys.interruption(agent, position)) === undefined)
          return `it lacks records of agent ${agent} before ${position.epoch}:${position.seq}`
        last = position
      }
  } finally {
    await cursor.close()
  }
  const end = catalog.chainEnd(agent)
  if (end !== undefined && (last === undefined || comparePositions(last, end) !== 0)) return `it lacks the last records of agent ${agent}`
  return undefined
}

/** What is wrong with a catalog's files. @throws what is no fault of theirs: they are right as they are */
export function faultOfFiles(error: unknown): string {
  const failure = asPacsimileError(error, 'Reading the catalog')
  const isOfItsFiles = failure.details['isDamaged'] === true || !SYSTEMS_FAULTS.has(failure.code)
  if (!isOfItsFiles) throw failure
  return failure.message
}
