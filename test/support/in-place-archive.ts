/** A small archive, its history and a copy of it: to be changed, restored in place, and taken back. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { vi } from 'vitest'
import type { InPlaceReport } from '../../collector/in-place-report.ts'
import { type RestoreReport, restore } from '../../collector/restore.ts'
import type { RestoreRequest } from '../../collector/restore-plan.ts'
import { type UndoReport, undoRestore } from '../../collector/undo.ts'
import { libc } from '../../shared/libc.ts'
import type { RelativePath } from '../../shared/path.ts'
import { JournalWriter, VOLUME } from './journal-writer.ts'
import { recordTree } from './recorded-tree.ts'
import { scratchDirectory } from './scratch.ts'
import { Store } from './store.ts'
import { walkTree } from './tree-walk.ts'
import type { Copy } from './truth.ts'

export interface Archive {
  readonly store: Store
  readonly writer: JournalWriter
  /** What the history says. */
  readonly truth: Copy
  /** A copy of it, to be changed and restored into. */
  readonly live: string
}

/** The history of what `make` makes in a directory. */
export async function archiveOf(make: (directory: string) => void): Promise<Archive> {
  const store = await Store.open()
  const writer = new JournalWriter()
  const source = join(scratchDirectory(), 'source')
  mkdirSync(source)
  make(source)
  recordTree(writer, source)
  await store.send(writer)
  return { store, writer, truth: walkTree(source), live: copyOf(source) }
}

export function copyOf(directory: string): string {
  const copy = join(scratchDirectory(), 'live')
  execFileSync('cp', ['-a', directory, copy])
  return copy
}

export async function restoreInto(
  at: Archive,
  to: string,
  change: Partial<RestoreRequest> = {},
): Promise<RestoreReport & { readonly inPlace: InPlaceReport }> {
  const point = await at.store.history.point(at.writer.agent, VOLUME, { kind: 'head' })
  const whole = { agent: at.writer.agent, volume: VOLUME, path: '' as RelativePath, point, to, inPlace: true, delete: true }
  const report = await restore(at.store.history, { ...whole, dryRun: false, setuid: false, special: false, torn: false, ...change })
  if (report.inPlace === undefined) throw new Error('it was not in place')
  return { ...report, inPlace: report.inPlace }
}

export function undo(to: string, id: string | undefined, force = false): Promise<UndoReport> {
  return undoRestore(to, id ?? '', force)
}

export const write = (directory: string, name: string, content: string): void => writeFileSync(join(directory, name), content)

/** Two studies of three images. */
export function studies(directory: string): void {
  for (const study of ['a', 'b']) {
    mkdirSync(join(directory, study))
    for (const image of ['1', '2', '3']) write(directory, `${study}/${image}`, `${study}${image} `.repeat(500))
  }
}

/** Fails as a power cut does, from the given rename on, and says how many there were. */
export function cutAt(limit: number): { count: () => number; mend: () => void } {
  let count = 0
  const spies = (['exchange', 'renameToNew'] as const).map((name) => {
    const real = libc?.[name] as (a: string, b: string) => boolean
    return vi.spyOn(libc as NonNullable<typeof libc>, name).mockImplementation((a, b) => {
      count += 1
      if (count >= limit) throw new RangeError('the power failed')
      return real(a, b)
    })
  })
  return { count: () => count, mend: () => spies.forEach((spy) => spy.mockRestore()) }
}

/** Of `studies`: each way in which something can differ. */
export function spoil(live: string): void {
  write(live, 'a/1', 'newer')
  rmSync(join(live, 'a/2'))
  write(live, 'a/new', 'was not there')
  rmSync(join(live, 'b'), { recursive: true })
  write(live, 'b', 'a file now')
  mkdirSync(join(live, 'c'))
  write(live, 'c/d', 'x')
  chmodSync(join(live, 'a/3'), 0o600)
}
