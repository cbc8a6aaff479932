/**
 * How the capture of changes stands beside the limits of the machine, as ratios measured in one run.
 *
 *     npm run bench:capture          BENCH_FILES=500000 BENCH_MANY=1000000 BENCH_STORM=100000 BENCH_RATE=20000 are its settings,
 *                                    BENCH_PARTS=latency,replica,events,rate,storm,scan,memory which of it is measured, BENCH_KINDS=ext4,xfs on what
 *
 * Scan: `agent scan` of a tree beside `find -printf` of the same tree, both warm, by turns. Latency: from close() of a
 * rewritten file of 500 KB until its record is durable in the journal, beside one durable write of as much. Replica: from close() until the replica
 * has the content under the same name, of new files, and of a database that is written in place. Events: how fast files
 * are created beside the agent, and beside a loop that reads every event and drops it. Rate: small files created at a fixed rate, and how long after the last one the agent is still behind. Storm: what a scan finds that no event announced.
 * Memory: of the agent while it captures a volume of many files for the first time, when it has nothing to do, and while it scans them.
 * Nothing fails by time here; needs root for the filesystems.
 */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, mkdirSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { type FilesystemKind, ImageFilesystem } from '../support/image-filesystem.ts'
import { runScript, storm } from '../support/storm.ts'
import { Random } from '../support/workload.ts'
import { RawWatch } from './raw-watcher.ts'
import { inMb, residentMax } from './resident.ts'
import { Station } from './station.ts'

const setting = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise)
const FILES = setting('BENCH_FILES', 500_000)
const MANY_FILES = setting('BENCH_MANY', 1_000_000)
/** By then what a burst has left was given back. */
const REST_SECONDS = 30
const STORM_OPERATIONS = setting('BENCH_STORM', 100_000)
const RATE_PER_SECOND = setting('BENCH_RATE', 20_000)
const RATE_SECONDS = 5
const RATE_WRITERS = 2
const EVENT_FILES = 50_000
const EVENT_TURNS = 3
const WRITER = join(import.meta.dirname, 'paced-writer.ts')
const FILES_PER_DIRECTORY = 50
const SCANS = 5
const LATENCY_FILES = 20
const LATENCY_ROUNDS = 30
const LATENCY_BYTES = 500_000
const LATENCY_PER_SECOND = 20
const REPLICA_SECONDS = 30
const REPLICA_DIRECTORIES = 20
const DATABASE_BYTES = 32 * 1024 * 1024
const PAGE_BYTES = 4096
const PAGES_PER_WRITE = 4
/** Read under a lease the file takes some 100 ms, and without a clone only a pause that is longer gives a whole version. */
const WRITES_PER_SECOND = 2
const LOOK_MS = 5
const PATIENCE_SECONDS = 3600
const FILESYSTEM_BYTES = 24 * 1024 ** 3

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

const spread = (ms: readonly number[]): string => `p50 ${quantile(ms, 0.5).toFixed(2)} ms, p99 ${quantile(ms, 0.99).toFixed(2)} ms`

function secondsOf(act: () => void): number {
  const started = performance.now()
  act()
  return (performance.now() - started) / 1000
}

/** Each measurement has a filesystem and an installation of its own, so that none inherits another's backlog. */
async function onFilesystem(
  kind: FilesystemKind,
  measure: (source: string, start: () => Promise<Station>) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'pacsimile-bench-'))
  const filesystem = ImageFilesystem.make(kind, FILESYSTEM_BYTES, directory)
  const source = join(filesystem.at, 'source')
  mkdirSync(source)
  const stations: Station[] = []
  try {
    await measure(source, async () => {
      const station = await Station.start(join(directory, 'station'), source)
      stations.push(station)
      return station
    })
  } finally {
    for (const station of stations) await station[Symbol.asyncDispose]()
    filesystem.unmount()
    rmSync(directory, { recursive: true, force: true })
  }
}

function makeTree(source: string, files: number): void {
  for (let i = 0; i < files; i++) {
    const directory = join(source, `y${Math.floor(i / FILES_PER_DIRECTORY / 100)}`, `s${Math.floor(i / FILES_PER_DIRECTORY)}`)
    if (i % FILES_PER_DIRECTORY === 0) mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, `f${i}.dcm`), `image ${i}`)
  }
}

function find(source: string): void {
  const { status } = spawnSync('find', [source, '-printf', '%p %i %s %T@ %C@ %m %U %G\\n'], { stdio: ['ignore', 'ignore', 'inherit'] })
  if (status !== 0) throw new Error(`find ended with ${status}`)
}

async function measureScan(kind: FilesystemKind): Promise<void> {
  await onFilesystem(kind, async (source, start) => {
    makeTree(source, FILES)
    const station = await start()
    const initialSeconds = await timed(() => station.wait(PATIENCE_SECONDS))
    await station.scan()
    find(source)
    const [scans, finds]: [number[], number[]] = [[], []]
    let entries = 0
    for (let i = 0; i < SCANS; i++) {
      const scan = await station.scan()
      entries = scan.entries
      scans.push(scan.seconds)
      finds.push(secondsOf(() => find(source)))
    }
    const [scan, beside] = [quantile(scans, 0.5), quantile(finds, 0.5)]
    say(
      `scan on ${kind}: ${entries} entries in ${scan.toFixed(2)} s (${(entries / scan / 1000).toFixed(0)} k/s), find -printf ${beside.toFixed(2)} s: ${(scan / beside).toFixed(2)} x; medians of ${SCANS}; first capture of all of them ${initialSeconds.toFixed(0)} s`,
    )
  })
}

async function timed(act: () => Promise<void>): Promise<number> {
  const started = performance.now()
  await act()
  return (performance.now() - started) / 1000
}

function durableWriteMs(file: string, bytes: Buffer): number {
  const started = performance.now()
  const fd = openSync(file, 'w')
  writeSync(fd, bytes)
  fdatasyncSync(fd)
  closeSync(fd)
  return performance.now() - started
}

/** Rewrites files that exist, so that no record of a directory is taken for that of a file. */
async function measureLatency(kind: FilesystemKind): Promise<void> {
  await onFilesystem(kind, async (source, start) => {
    const random = new Random(1)
    const noise = random.bytes(LATENCY_BYTES * 2)
    for (let i = 0; i < LATENCY_FILES; i++) writeFileSync(join(source, `f${i}`), noise.subarray(0, LATENCY_BYTES))
    const station = await start()
    await station.wait(PATIENCE_SECONDS)
    const { headSeq: firstSeq } = await station.status()
    const [lags, writes]: [number[], number[]] = [[], []]
    for (let i = 0; i < LATENCY_FILES * LATENCY_ROUNDS; i++) {
      const from = random.below(LATENCY_BYTES)
      const bytes = noise.subarray(from, from + LATENCY_BYTES)
      const { headSeq } = await station.status()
      writeFileSync(join(source, `f${i % LATENCY_FILES}`), bytes, { flag: 'r+' })
      const closedMs = Date.now()
      // Nobody asks meanwhile: on two cores that would be half of what is measured.
      await setTimeout(1000 / LATENCY_PER_SECOND)
      let after = await station.status()
      for (; after.headSeq === headSeq; after = await station.status()) await setTimeout(1)
      lags.push((after.headMs ?? Number.NaN) - closedMs)
      writes.push(durableWriteMs(join(station.state, '..', 'durable'), Buffer.from(bytes)))
    }
    const { journalLag } = await station.status()
    await station.wait(PATIENCE_SECONDS)
    const others = [...station.recordsAfter(firstSeq)].map(([op, count]) => `${count} ${op}`).join(', ')
    say(
      `latency on ${kind}: close() to journal ${spread(lags)}, the slowest ${Math.max(...lags)} ms, over ${lags.length} rewrites of ${LATENCY_BYTES / 1000} KB at ${LATENCY_PER_SECOND}/s (the agent's own word: p99 ${journalLag?.p99Ms.toFixed(1)} ms); one durable write of as much ${spread(writes)}: ${(quantile(lags, 0.5) / quantile(writes, 0.5)).toFixed(1)} x at p50; records meanwhile: ${others}`,
    )
  })
}

/** Calls `write` at a pace, and `look` every few ms until it says that everything was seen. */
async function atPace(perSecond: number, write: (turn: number) => void, look: () => boolean): Promise<void> {
  const startedMs = performance.now()
  let turn = 0
  while (turn < REPLICA_SECONDS * perSecond || !look()) {
    const isDue = performance.now() - startedMs >= (turn * 1000) / perSecond
    if (isDue && turn < REPLICA_SECONDS * perSecond) write(turn++)
    else await setTimeout(LOOK_MS)
    look()
  }
}

/** Each file is of its own, so that all of its content is sent. A name is given by rename(2), which the kernel notes as the inode's ctime. */
async function newFileLags(source: string, replica: string): Promise<number[]> {
  const lags: number[] = []
  const waiting = new Map<string, number>()
  const write = (turn: number): void => {
    const name = `d${turn % REPLICA_DIRECTORIES}/new${turn}.dcm`
    writeFileSync(join(source, name), randomBytes(LATENCY_BYTES))
    waiting.set(name, Date.now())
  }
  await atPace(LATENCY_PER_SECOND, write, () => {
    for (const [name, closedMs] of waiting) {
      const found = statSync(join(replica, name), { throwIfNoEntry: false })
      if (found === undefined) continue
      lags.push(found.ctimeMs - closedMs)
      waiting.delete(name)
    }
    return waiting.size === 0
  })
  return lags
}

/** The replica has a write when it has that one's time of modification, or a later one. */
async function databaseLags(file: string, replica: string, random: Random): Promise<number[]> {
  const lags: number[] = []
  const waiting: { readonly mtimeNs: bigint; readonly closedMs: number }[] = []
  const write = (): void => {
    const fd = openSync(file, 'r+')
    for (let page = 0; page < PAGES_PER_WRITE; page++)
      writeSync(fd, randomBytes(PAGE_BYTES), 0, PAGE_BYTES, random.below(DATABASE_BYTES / PAGE_BYTES) * PAGE_BYTES)
    closeSync(fd)
    waiting.push({ mtimeNs: statSync(file, { bigint: true }).mtimeNs, closedMs: Date.now() })
  }
  await atPace(WRITES_PER_SECOND, write, () => {
    const found = statSync(replica, { bigint: true })
    for (; waiting[0] !== undefined && waiting[0].mtimeNs <= found.mtimeNs; waiting.shift())
      lags.push(Number(found.ctimeNs / 1000n) / 1000 - waiting[0].closedMs)
    return waiting.length === 0
  })
  return lags
}

async function measureReplica(kind: FilesystemKind): Promise<void> {
  await onFilesystem(kind, async (source, start) => {
    for (let i = 0; i < REPLICA_DIRECTORIES; i++) mkdirSync(join(source, `d${i}`))
    const database = join(source, 'index.db')
    writeFileSync(database, randomBytes(DATABASE_BYTES))
    const station = await start()
    await station.wait(PATIENCE_SECONDS)
    const replica = join(station.data, 'replica', 'bench', 'images')
    const files = await newFileLags(source, replica)
    await station.wait(PATIENCE_SECONDS)
    const writes = await databaseLags(database, join(replica, 'index.db'), new Random(1))
    const slowest = (lags: readonly number[]): string => `${spread(lags)}, the slowest ${Math.max(...lags).toFixed(0)} ms`
    say(
      `replica on ${kind}: close() to the replica ${slowest(files)}, over ${files.length} new files of ${LATENCY_BYTES / 1000} KB at ${LATENCY_PER_SECOND}/s; of a database of ${DATABASE_BYTES / 1024 / 1024} MiB of which ${PAGES_PER_WRITE} pages are written at ${WRITES_PER_SECOND}/s ${slowest(writes)}, over ${writes.length} writes`,
    )
  })
}

interface Written {
  readonly files: number
  readonly seconds: number
}

/** New files from several processes, at a rate of them all together or as fast as it goes. */
async function write(root: string, files: number, perSecond?: number): Promise<Written> {
  const writers = Array.from({ length: RATE_WRITERS }, async (_, writer) => {
    const pace = perSecond === undefined ? {} : { perSecond: perSecond / RATE_WRITERS }
    return (await runScript(WRITER, { root: join(root, `w${writer}`), files: files / RATE_WRITERS, ...pace })) as Written
  })
  const reports = await Promise.all(writers)
  return { files, seconds: Math.max(...reports.map(({ seconds }) => seconds)) }
}

/** What being watched costs whoever writes: by nobody, by a loop that drops every event, by the agent. */
async function measureEvents(kind: FilesystemKind): Promise<void> {
  const rates: Record<'unwatched' | 'raw' | 'agent', number[]> = { unwatched: [], raw: [], agent: [] }
  const rate = ({ files, seconds }: Written): number => files / seconds / 1000
  for (let turn = 0; turn < EVENT_TURNS; turn++) {
    await onFilesystem(kind, async (source) => {
      rates.unwatched.push(rate(await write(source, EVENT_FILES)))
    })
    await onFilesystem(kind, async (source) => {
      await using raw = await RawWatch.start(source)
      rates.raw.push(rate(await write(source, EVENT_FILES)))
      const events = await raw.end()
      if (events < EVENT_FILES) throw new Error(`the raw loop read ${events} events of ${EVENT_FILES} files`)
    })
    await onFilesystem(kind, async (source, start) => {
      const station = await start()
      await station.wait(PATIENCE_SECONDS)
      rates.agent.push(rate(await write(source, EVENT_FILES)))
      await station.wait(PATIENCE_SECONDS)
      const { volumes } = await station.status()
      const { unannounced } = await station.scan()
      if (volumes[0]?.gaps !== 0 || unannounced !== 0) throw new Error(`gaps ${volumes[0]?.gaps}, unannounced ${unannounced}`)
    })
  }
  const [unwatched, raw, agent] = [rates.unwatched, rates.raw, rates.agent].map((values) => quantile(values, 0.5))
  say(
    `events on ${kind}: ${RATE_WRITERS} processes create files as fast as they can, unwatched ${unwatched?.toFixed(1)} k/s, beside a raw fanotify loop ${raw?.toFixed(1)} k/s, beside the agent ${agent?.toFixed(1)} k/s: ${((agent ?? 0) / (raw ?? 0)).toFixed(2)} x the raw loop; medians of ${EVENT_TURNS} times ${EVENT_FILES} files; gaps 0, unannounced 0`,
  )
}

async function measureRate(kind: FilesystemKind): Promise<void> {
  await onFilesystem(kind, async (source, start) => {
    const station = await start()
    await station.wait(PATIENCE_SECONDS)
    const { headSeq: firstSeq } = await station.status()
    let dirtyMax = 0
    const written = write(source, RATE_PER_SECOND * RATE_SECONDS, RATE_PER_SECOND)
    const over = new AbortController()
    const watched = (async () => {
      while (!over.signal.aborted) {
        dirtyMax = Math.max(dirtyMax, (await station.status()).dirty)
        await setTimeout(100)
      }
    })()
    const { files, seconds } = await written
    over.abort()
    const ended = performance.now()
    await watched
    const journalled = (await station.status()).headSeq - firstSeq
    while ((await station.status()).dirty > 0) await setTimeout(20)
    const behindSeconds = (performance.now() - ended) / 1000
    await station.wait(PATIENCE_SECONDS)
    const deliveredSeconds = (performance.now() - ended) / 1000
    const { volumes } = await station.status()
    const { unannounced } = await station.scan()
    say(
      `rate on ${kind}: ${files} files in ${seconds.toFixed(1)} s (${(files / seconds / 1000).toFixed(1)} k/s, asked for ${(RATE_PER_SECOND / 1000).toFixed(1)}); ${journalled} records journalled by the last of them, at most ${dirtyMax} paths waiting; all captured ${behindSeconds.toFixed(1)} s later, all in the replica ${deliveredSeconds.toFixed(1)} s later; gaps ${volumes[0]?.gaps}, unannounced ${unannounced}`,
    )
  })
}

async function measureStorm(kind: FilesystemKind): Promise<void> {
  await onFilesystem(kind, async (source, start) => {
    const station = await start()
    await station.wait(PATIENCE_SECONDS)
    station.expectMassChange('storm')
    const report = await storm(source, { operations: STORM_OPERATIONS, seed: 1 })
    const seconds = await timed(() => station.wait(PATIENCE_SECONDS))
    const { differences, unannounced } = await station.scan()
    const { volumes } = await station.status()
    say(
      `storm on ${kind}: ${report.operations} operations in ${report.seconds.toFixed(1)} s (${(report.operations / report.seconds / 1000).toFixed(1)} k/s), all in the replica ${seconds.toFixed(1)} s later; a scan then finds ${differences} differences, ${unannounced} that no event announced; mode ${volumes[0]?.mode}, gaps ${volumes[0]?.gaps}`,
    )
  })
}

async function measureMemory(kind: FilesystemKind): Promise<void> {
  await onFilesystem(kind, async (source, start) => {
    makeTree(source, MANY_FILES)
    const station = await start()
    const pid = station.agentPid
    const capturing = await residentMax(pid, () => station.wait(PATIENCE_SECONDS))
    await setTimeout(REST_SECONDS * 1000)
    const resting = await residentMax(pid, () => setTimeout(1000))
    const scanning = await residentMax(pid, () => station.scan())
    say(
      `memory on ${kind}: of an agent with ${MANY_FILES} files, at most ${inMb(capturing)} while they are captured for the first time, ${inMb(resting)} ${REST_SECONDS} s later, at most ${inMb(scanning)} while they are scanned`,
    )
  })
}

const { stdout: kernel } = spawnSync('uname', ['-r'], { encoding: 'utf8' })
say(`${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}, kernel ${kernel.trim()}, node ${process.version}`)
const PARTS = {
  latency: measureLatency,
  replica: measureReplica,
  events: measureEvents,
  rate: measureRate,
  storm: measureStorm,
  scan: measureScan,
  memory: measureMemory,
}
const wanted = process.env['BENCH_PARTS']?.split(',') ?? Object.keys(PARTS)
const kinds = process.env['BENCH_KINDS']?.split(',')
for (const kind of ['ext4', 'xfs'] as const) {
  if (kinds?.includes(kind) === false) continue
  for (const [name, measure] of Object.entries(PARTS)) if (wanted.includes(name)) await measure(kind)
}
