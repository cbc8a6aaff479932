import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const SOAK = process.env['PACSIMILE_SOAK'] === '1'
const SECONDS = SOAK ? 60 : 8
const MOMENTS = SOAK ? 50 : 12
/** The most that a restored moment may be behind the moment that was asked for. */
const LAG_MAX_MS = 1500
const SCRIPT = join(import.meta.dirname, '../support/sqlite.py')
const LIMIT = { timeout: (120 + SECONDS * 10) * 1000 }

/** A commit that had returned: so many rows, at that moment. */
interface Commit {
  readonly rows: number
  readonly ms: number
}

interface Look {
  readonly check: string
  readonly rows: number
  readonly low: number
  readonly high: number
}

async function writeRows(file: string): Promise<Commit[]> {
  const writer = spawn('python3', [SCRIPT, 'write', file, String(SECONDS)], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => {
    writer.kill('SIGKILL')
  })
  const parts: Buffer[] = []
  writer.stdout.on('data', (part: Buffer) => parts.push(part))
  const [status] = (await once(writer, 'close')) as [number | null]
  if (status !== 0) throw new Error(`the database's writer ended with ${status}`)
  const lines = Buffer.concat(parts).toString('utf8').trim().split('\n')
  return lines.map((line) => ({ rows: Number(line.split(' ')[0]), ms: Number(line.split(' ')[1]) }))
}

/** Opens each copy, which recovers its log, and counts. */
function look(directories: readonly string[]): Look[] {
  const { status, stdout, stderr } = spawnSync('python3', [SCRIPT, 'look', ...directories], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  return JSON.parse(stdout) as Look[]
}

/** What is wrong with a copy of that moment, in words. */
function faultsOf({ check, rows, low, high }: Look, commits: readonly Commit[], ms: number): string[] {
  const least = commits.findLast((commit) => commit.ms <= ms - LAG_MAX_MS)?.rows ?? 0
  // The commit under way at that moment may be in it, though its return is told later.
  const under = commits.findIndex((commit) => commit.ms > ms)
  const most = commits[under === -1 ? commits.length - 1 : under]?.rows ?? 0
  return [
    ...(check === 'ok' ? [] : [`integrity_check: ${check}`]),
    ...(rows === high && (rows === 0 || low === 1) ? [] : [`${rows} rows from ${low} to ${high}`]),
    ...(rows >= least && rows <= most ? [] : [`${rows} rows, between ${least} and ${most} were committed`]),
  ]
}

function withoutLog(copy: string): string {
  const to = join(scratchDirectory(), 'bare')
  cpSync(copy, to, { recursive: true })
  rmSync(join(to, 'index-wal'), { force: true })
  return to
}

describe.skipIf(!canMount)(`a SQLite database in EXCLUSIVE + WAL mode (PACSIMILE_SEED=${SEED})`, () => {
  it.each(['ext4', 'xfs'] as const)('S01 is whole at every moment, with every row that was committed, on %s', LIMIT, async (kind) => {
    const { at } = makeFilesystem(kind, 1 << 30)
    mkdirSync(join(at, 'db'))
    const site = await Site.watching({ source: at })
    const commits = await writeRows(join(at, 'db', 'index'))
    await site.wait()

    const random = new Random(SEED)
    const [first, last] = [commits[0]?.ms ?? 0, commits.at(-1)?.ms ?? 0]
    const earliest = first + LAG_MAX_MS
    const anyTime = Array.from({ length: MOMENTS / 2 }, () => Math.ceil(earliest + random.below(last - earliest)))
    // The moments at which something of the database was recorded: if one file comes without the other, it is seen there.
    const recorded = site.log({ path: 'db' }).map(({ time }) => Date.parse(time))
    const told = recorded.filter((ms) => ms > earliest && ms < last)
    const moments = [...anyTime, ...Array.from({ length: MOMENTS / 2 }, () => random.pick(told) ?? last)]
    const copies = moments.map((ms) => site.restore(new Date(ms).toISOString(), { path: 'db' }))
    const bare = copies.map(withoutLog)
    const found = look(copies)
    expect(found.flatMap((copy, i) => faultsOf(copy, commits, moments[i] ?? 0).map((fault) => `${moments[i]}: ${fault}`))).toEqual([])
    // It shows that the logs were needed, and that a copy which is behind would be told.
    const rowsOf = (looks: readonly Look[]): number => looks.reduce((sum, { rows }) => sum + rows, 0)
    expect(rowsOf(look(bare))).toBeLessThan(rowsOf(found))
    const oldest = found.reduce((least, copy) => (copy.rows < least.rows ? copy : least))
    expect(faultsOf(oldest, commits, last + LAG_MAX_MS)).not.toEqual([])
    // Neither file is ever said to be torn: they are one state, taken together.
    const torn = site.log({ path: 'db' }).filter(({ version }) => version?.consistency === 'torn')
    expect(torn).toEqual([])
  })
})
