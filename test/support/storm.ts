/**
 * A storm of changes: several processes that change nested trees below one directory at full speed, seeded.
 *
 * Invariant: what a writer says that it did, it did; the storm fails where one of its processes does. It prevents a capture
 * from being praised for surviving a storm that never blew.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

const WRITER = join(import.meta.dirname, 'storm-writer.ts')
const WRITERS = 4

export interface StormReport {
  readonly operations: number
  /** Of the slowest writer. */
  readonly seconds: number
  /** How often each operation was done. */
  readonly done: Readonly<Record<string, number>>
  /** Names of regular files that the writers' own trees hold at the end, hard links counted each. */
  readonly files: number
  readonly directories: number
}

export interface StormOptions {
  /** Of all writers together. */
  readonly operations: number
  readonly seed: number
}

/** Runs a script with Node, and resolves with the last line that it printed, which is JSON. The signal ends it. */
export async function runScript(script: string, input: unknown, signal?: AbortSignal): Promise<unknown> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, JSON.stringify(input)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(signal === undefined ? {} : { signal, killSignal: 'SIGKILL' }),
  })
  const parts: Buffer[] = []
  child.stdout.on('data', (part: Buffer) => parts.push(part))
  const [status] = (await once(child, 'close')) as [number | null]
  if (status !== 0) throw new Error(`${script} ended with ${status}`)
  return JSON.parse(Buffer.concat(parts).toString('utf8').trim().split('\n').at(-1) ?? '')
}

export async function storm(root: string, { operations, seed }: StormOptions): Promise<StormReport> {
  mkdirSync(root, { recursive: true })
  const each = Math.ceil(operations / WRITERS)
  const reports = await Promise.all(
    Array.from(
      { length: WRITERS },
      async (_, writer) => (await runScript(WRITER, { root, writer, operations: each, seed })) as StormReport,
    ),
  )
  const done: Record<string, number> = {}
  for (const report of reports) for (const [name, count] of Object.entries(report.done)) done[name] = (done[name] ?? 0) + count
  return {
    operations: each * WRITERS,
    seconds: Math.max(...reports.map(({ seconds }) => seconds)),
    done,
    files: reports.reduce((sum, { files }) => sum + files, 0),
    directories: reports.reduce((sum, { directories }) => sum + directories, 0),
  }
}
