/** A data directory that a process of its own works on (archive-work.ts), and what must hold of it whatever became of that process. */
import { cpSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { checkRepository } from '../../collector/check.ts'
import { OfflineHistory } from '../../collector/offline-history.ts'
import { rebuildCatalog } from '../../collector/rebuild.ts'
import { ROOT } from '../../shared/path.ts'
import type { ChainEnd } from '../../shared/record.ts'
import { type Run, run, type Work } from './fault-steps.ts'
import { type JournalWriter, VOLUME } from './journal-writer.ts'
import { scratchDirectory } from './scratch.ts'

const WORK = join(import.meta.dirname, 'archive-work.ts')

export interface Archive {
  readonly directory: string
  readonly key: string
  readonly writer: JournalWriter
}

/** Of a copy of the archive; `args` are what is to be done, where `DATA` stands for its directory. */
export function workOn(archive: Archive, ...args: readonly string[]): Work & Archive {
  const directory = join(scratchDirectory(), 'data')
  cpSync(archive.directory, directory, { recursive: true })
  return { ...archive, directory, command: commandOn(directory, archive.key, args) }
}

function commandOn(directory: string, key: string, args: readonly string[]): string[] {
  const named = args.map((arg) => arg.replace('DATA', directory))
  return [process.execPath, '--disable-warning=ExperimentalWarning', WORK, directory, key, ...named]
}

/** With nothing in its way. */
export function finish({ directory, key }: Archive, ...args: readonly string[]): Promise<Run> {
  return run({ command: commandOn(directory, key, args) })
}

export const repositoryOf = ({ directory }: Pick<Archive, 'directory'>): string => join(directory, 'repository')
export const keyOf = ({ key }: Archive): Buffer => Buffer.from(key, 'hex')

/** Every byte of it is whole, and every version up to `end` is there and can be had. */
export async function expectSound(archive: Archive, end: ChainEnd = archive.writer.end, directory = repositoryOf(archive)): Promise<void> {
  const dataKey = keyOf(archive)
  expect(await checkRepository(directory, dataKey)).toMatchObject({ damage: [], affected: [] })
  await using history = await OfflineHistory.open(directory, dataKey)
  expect(history.damage).toEqual([])
  const { agent, written } = archive.writer
  expect(history.catalog.chainEnd(agent)?.seq).toBeGreaterThanOrEqual(end.seq)
  const paths = new Set<string>()
  for await (const { path, version, absent } of history.tree(agent, VOLUME, ROOT, end)) {
    expect(absent).toBeUndefined()
    paths.add(path)
    if (version.kind !== 'file') continue
    for await (const chunk of history.chunks(version.chunks)) expect(chunk).toHaveProperty('bytes')
  }
  for (const { record } of written) if (record.kind === 'put' && record.seq <= end.seq) expect(paths).toContain(record.path)
}

/** The catalog is the fold of the segments, and nothing lies beside it. */
export async function expectFolded(archive: Archive): Promise<void> {
  const directory = join(archive.directory, 'catalog')
  const rebuilt = await rebuildCatalog({ directory, repositoryDirectory: repositoryOf(archive), dataKey: keyOf(archive) })
  expect(rebuilt).toMatchObject({ before: 'equal', differences: 0, damage: [] })
  expect(readdirSync(archive.directory).filter((name) => name.startsWith('catalog.'))).toEqual([])
}

/** The end of the last record that was acknowledged in the words of archive-work.ts. */
export function ackedIn({ writer }: Archive, said: string, from: number): ChainEnd {
  const seqs = [...said.matchAll(/^acked (\d+)$/gm)].map(([, seq]) => Number(seq))
  const last = Math.max(from, ...seqs)
  const found = writer.written.find(({ record }) => record.seq === last)
  if (found === undefined) throw new Error(`record ${last} was acknowledged and never written`)
  return { ...writer.end, seq: last, time: found.record.time }
}
