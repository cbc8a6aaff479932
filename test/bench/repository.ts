/**
 * What a long history costs: repositories of some and of many versions of 10^5 files, opened, folded anew, checked, looked at as they were at several
 * moments, and planned to be pruned.
 *
 *     node --disable-warning=ExperimentalWarning test/bench/repository.ts
 *
 * Not a test: nothing fails by time here. Each step is a process of its own, started as the launcher does, so that its peak of memory is its
 * own: of all that is resident (`rss`), of what cannot be given back without swapping (`anon`), and of mapped files, which are the page cache's
 * (`file`; some 57 MB of it are Node itself). BENCH_VERSIONS lists the sizes: what is flat is about the same in each. BENCH_FILES makes the tree smaller,
 * BENCH_PER_DIRECTORY its directories larger. Beside
 * reading (`check`) stands sha256sum over the same files, from the page cache like them.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Catalog } from '../../collector/catalog.ts'
import { openCatalog } from '../../collector/catalog-opening.ts'
import { checkRepository } from '../../collector/check.ts'
import { ChunkCache } from '../../collector/chunk-cache.ts'
import { History } from '../../collector/history.ts'
import type { TreeDepth } from '../../collector/history-source.ts'
import { encodeEntries } from '../../collector/history-wire.ts'
import { Ingest } from '../../collector/ingest.ts'
import { endOfLedger } from '../../collector/ledger-view.ts'
import { planPrune } from '../../collector/prune-plan.ts'
import { rebuildCatalog } from '../../collector/rebuild.ts'
import { RemoteHistory } from '../../collector/remote-history.ts'
import { replay } from '../../collector/replay.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { planRestore } from '../../collector/restore-plan.ts'
import { RunningTime } from '../../collector/running-time.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import { keepHeapSmall } from '../../shared/heap.ts'
import { serveLocal } from '../../shared/local-api.ts'
import { silentLog } from '../../shared/log.ts'
import { type RelativePath, ROOT, relativePath } from '../../shared/path.ts'
import type { Position } from '../../shared/record.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'

const VERSIONS = (process.env['BENCH_VERSIONS'] ?? '200000 1000000').split(' ').map(Number)
const FILES = Number(process.env['BENCH_FILES'] ?? 100_000)
const PER_DIRECTORY = Number(process.env['BENCH_PER_DIRECTORY'] ?? 1000)
const CONTENT_BYTES = 200
const RECORDS_AT_ONCE = 2000
const KEY = Buffer.alloc(32, 7)
const MB = 1e6
const KIB_PER_MIB = 1024
const LOOK_MS = 25
/** As collector/cli/pacsimile and main.ts start a collector and the other commands. */
const HEAP_GROWING_PERCENT = 100
const NODE_OPTIONS = ['--disable-warning=ExperimentalWarning']
const SHORT_LIVED_MB = { make: 16, open: 16, rebuild: 4, check: 4, look: 4, plan: 4 }
/** Parts of the history after which it is looked at. */
const MOMENTS = [0.1, 0.5, 1]

const repositoryOf = (directory: string): string => join(directory, 'repository')
const pathOf = (file: number): string => `d${Math.floor(file / PER_DIRECTORY)}/f${file}`

async function make(directory: string, versions: number): Promise<object> {
  const failures: unknown[] = []
  Repository.create(repositoryOf(directory), { id: '00'.repeat(16), chunkSizes: DEFAULT_CHUNK_SIZES })
  const catalog = await Catalog.open(join(directory, 'catalog'))
  const repository = Repository.openForAppending(repositoryOf(directory), KEY)
  const age = new RunningTime(0)
  const ingest = new Ingest({ repository, catalog, cache: new ChunkCache(0), log: silentLog, age, onCommit() {} })
  const stop = new AbortController()
  const running = ingest.run(stop.signal)
  const writer = new JournalWriter()
  const session = { agent: writer.agent, lost: new Set<never>(), committed() {}, failed: (error: unknown) => void failures.push(error) }
  const send = async (): Promise<void> => {
    for (const digest of writer.chunks.keys()) await ingest.submit({ session, chunk: writer.chunkMessage(digest) })
    await ingest.submit({ session, records: writer.written.map(({ bytes }) => bytes) })
    writer.chunks.clear()
    writer.written.length = 0
  }
  for (let d = 0; d < FILES / PER_DIRECTORY; d++) writer.put(`d${d}`, directoryVersion())
  for (let i = 0; i < versions; i++) {
    // A stride that meets every file, far apart.
    writer.file(pathOf((i * 7919) % FILES), randomFillSync(Buffer.alloc(CONTENT_BYTES)))
    if (writer.written.length < RECORDS_AT_ONCE) continue
    await send()
    if (i % (versions / 10) < RECORDS_AT_ONCE)
      await ingest.note(() => [{ kind: 'tick', newestPack: repository.numbers('pack').at(-1) ?? 0 }])
  }
  await send()
  stop.abort()
  await running
  await repository.sealed()
  await catalog.close()
  repository.close()
  if (failures.length > 0) throw new Error(String(failures[0]))
  return {
    megabytes: Math.round(bytesBelow(repositoryOf(directory)) / MB),
    catalogMegabytes: Math.round(bytesBelow(join(directory, 'catalog')) / MB),
  }
}

async function open(directory: string): Promise<object> {
  const catalog = await openCatalog(join(directory, 'catalog'), silentLog)
  const repository = Repository.openForAppending(repositoryOf(directory), KEY, catalog.reflected())
  const { records } = await replay(repository, catalog)
  await catalog.close()
  repository.close()
  return { foldedRecords: records }
}

async function rebuild(directory: string): Promise<object> {
  const { records, seconds, before } = await rebuildCatalog({
    directory: join(directory, 'catalog'),
    repositoryDirectory: repositoryOf(directory),
    dataKey: KEY,
  })
  return { before, recordsPerMinute: Math.round((records / seconds) * 60) }
}

async function check(directory: string): Promise<object> {
  const report = await checkRepository(repositoryOf(directory), KEY)
  if (report.damage.length > 0 || report.affected.length > 0) throw new Error('the repository is damaged')
  return {
    versionsPerSecond: Math.round(report.versions / report.seconds),
    megabytesPerSecond: Math.round(report.bytes / MB / report.seconds),
  }
}

/** Of several moments: one directory, the whole tree, and the plan of a restore, asked of a collector through its socket. */
async function look(directory: string): Promise<object> {
  const catalog = await openCatalog(join(directory, 'catalog'), silentLog)
  const repository = Repository.open(repositoryOf(directory), KEY)
  const history = new History(catalog, repository)
  const { agent } = new JournalWriter()
  const { seq = 0 } = catalog.chainEnd(agent) ?? {}
  const socket = join(directory, 'look.sock')
  const server = await serveLocal(socket, {
    damage: () => Promise.resolve([]),
    tree: (body) => {
      const asked = body as { path: RelativePath; at: Position; depth?: TreeDepth }
      return encodeEntries(history.stored(agent, VOLUME, asked.path, asked.at, asked.depth))
    },
  })
  const source = await RemoteHistory.open(socket)
  const looks = []
  for (const part of MOMENTS) {
    const at = { epoch: 1, seq: Math.ceil(seq * part) }
    const first = relativePath(pathOf(0).split('/')[0] ?? '')
    const [inDirectory, ofDirectory] = await timed(() => counted(source.tree(agent, VOLUME, first, at, 'directory')))
    const [, ofRoot] = await timed(() => counted(source.tree(agent, VOLUME, ROOT, at, 'directory')))
    const [inTree, ofTree] = await timed(() => counted(history.tree(agent, VOLUME, ROOT, at)))
    const point = { position: at, time: undefined, requestedMs: 0, next: undefined, gap: undefined, whole: true, coverage: undefined }
    const asked = { agent, volume: VOLUME, path: ROOT, point, to: '/', dryRun: true, setuid: false, special: false, torn: false }
    const [, ofPlan] = await timed(() => planRestore(source, asked))
    looks.push({ part, inDirectory, ofDirectory, ofRoot, inTree, ofTree, ofPlan })
  }
  await server.close()
  await catalog.close()
  repository.close()
  return { looks }
}

async function counted(entries: AsyncIterable<unknown>): Promise<number> {
  let count = 0
  for await (const _ of entries) count += 1
  return count
}

/** With the seconds that passed, and those that both sides together took of the CPU. */
async function timed<Result>(act: () => Promise<Result>): Promise<[Result, readonly [seconds: number, cpuSeconds: number]]> {
  const [startedMs, started] = [performance.now(), process.cpuUsage()]
  const result = await act()
  const { user, system } = process.cpuUsage(started)
  return [result, [secondsSince(startedMs), Math.round((user + system) / 1e4) / 100]]
}

async function plan(directory: string): Promise<object> {
  const catalog = await openCatalog(join(directory, 'catalog'), silentLog)
  const repository = Repository.open(repositoryOf(directory), KEY)
  const none = { all: 0, hourly: 0, daily: 0, monthly: 0, worm: 0 }
  const nowMs = endOfLedger(catalog).ageMs + 1
  const { volumes, packs } = await planPrune({ catalog, repository, policy: { others: none, volumes: {} }, nowMs, quarantineMs: 0 })
  await catalog.close()
  repository.close()
  return { expiring: volumes[0]?.expiring, packs: packs.length }
}

function bytesBelow(directory: string): number {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0)
}

const STEPS = { make, open, rebuild, check, look, plan } as const

/** In MiB, by /proc/PID/status. */
interface Memory {
  readonly rss: number
  readonly anon: number
  readonly file: number
}

function memoryOf(pid: number): Memory | undefined {
  let status: string
  try {
    status = readFileSync(`/proc/${pid}/status`, 'latin1')
  } catch {
    // It ended.
    return undefined
  }
  const megabytes = (name: string): number => Math.round(Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / KIB_PER_MIB)
  return { rss: megabytes('VmHWM'), anon: megabytes('RssAnon'), file: megabytes('RssFile') }
}

/** The highest of each, looked at until the process ends. */
async function peakOf(child: ChildProcess): Promise<Memory> {
  let peak: Memory = { rss: 0, anon: 0, file: 0 }
  while (child.exitCode === null && child.signalCode === null) {
    const { rss, anon, file } = memoryOf(child.pid ?? 0) ?? peak
    peak = { rss: Math.max(peak.rss, rss), anon: Math.max(peak.anon, anon), file: Math.max(peak.file, file) }
    await setTimeout(LOOK_MS)
  }
  return peak
}

async function measured(step: keyof typeof STEPS, directory: string, versions: number): Promise<void> {
  const options = [...NODE_OPTIONS, `--max-semi-space-size=${SHORT_LIVED_MB[step]}`]
  const child = spawn(process.execPath, [...options, program, step, directory, `${versions}`], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [told, peakMegabytes] = await Promise.all([child.stdout.setEncoding('utf8').reduce((all, part) => all + part, ''), peakOf(child)])
  if (child.exitCode !== 0) throw new Error(`${step} failed`)
  process.stdout.write(`${JSON.stringify({ step, versions, peakMegabytes, ...JSON.parse(told) })}\n`)
}

async function bench(versions: number): Promise<void> {
  const directory = mkdtempSync(join(process.env['BENCH_DIRECTORY'] ?? tmpdir(), 'pacsimile-bench-'))
  try {
    for (const step of Object.keys(STEPS) as (keyof typeof STEPS)[]) await measured(step, directory, versions)
    const startedMs = performance.now()
    spawnSync('sh', ['-c', `find ${repositoryOf(directory)} -type f -exec sha256sum {} + > /dev/null`])
    process.stdout.write(`${JSON.stringify({ step: 'sha256sum', versions, seconds: secondsSince(startedMs) })}\n`)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function secondsSince(startedMs: number): number {
  return Math.round(performance.now() - startedMs) / 1000
}

const [, program = '', step, directory = '', versions] = process.argv
if (step === undefined) {
  for (const each of VERSIONS) await bench(each)
} else {
  keepHeapSmall(HEAP_GROWING_PERCENT)
  const startedMs = performance.now()
  const found = await STEPS[step as keyof typeof STEPS](directory, Number(versions))
  const { user, system } = process.cpuUsage()
  const cpuSeconds = Math.round((user + system) / 1e4) / 100
  process.stdout.write(JSON.stringify({ seconds: secondsSince(startedMs), cpuSeconds, ...found }))
}
