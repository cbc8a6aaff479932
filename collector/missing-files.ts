/**
 * Files of a repository that should be there, and are not.
 *
 * Numbers are given out one after the other, and nothing is ever removed but packs, by prune, which says so in the ledger first. So a
 * number that was passed over is a file that was lost. It prevents a disk that loses a file as a whole from looking like one that is whole.
 */
import type { Catalog, Damage } from './catalog.ts'
import { retirementOf } from './ledger-view.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import type { Repository } from './repository/repository.ts'

export interface RepositoryFile {
  readonly kind: FrameFileKind
  readonly number: number
}

/** The numbers below the highest one that are not there, rising. */
export function passedOver(numbers: readonly number[]): number[] {
  const there = new Set(numbers)
  const missing: number[] = []
  for (let number = 1; number < (numbers.at(-1) ?? 0); number++) if (!there.has(number)) missing.push(number)
  return missing
}

/** Whether prune has removed it. */
export function isRemoved(catalog: Catalog, { kind, number }: RepositoryFile): boolean {
  return kind === 'pack' && (retirementOf(catalog, number)?.deletedBy ?? 0) > 0
}

export function missingDamage(repository: Repository, { kind, number }: RepositoryFile): Damage {
  return { file: repository.pathOf(kind, number), offset: 0, reason: 'the file is missing' }
}
