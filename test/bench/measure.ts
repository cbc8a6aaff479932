/**
 * The figures that are promised, as ratios against a limit of the machine measured in the same run.
 *
 *     npm run bench
 *
 * Not a test: nothing fails by time here. Lag: from close() of a 526 KB file to the same bytes in the replica, beside one
 * durable copy of the same file on the same disk. Initial: a tree of DICOM files until it is in the replica, beside cp -a.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  cpSync,
  fdatasyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { dicomFile, sampleUid } from '../../collector/cli/dicom-sample.ts'

const EXECUTABLE = join(import.meta.dirname, '../../collector/cli/pacsimile')
const LAG_FILES = 200
const RATE_PER_SECOND = 20
const TREE_FILES = 1000

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

function image(number: number): Buffer {
  return dicomFile({
    patientName: `BENCH^${number}`,
    patientId: `B${number}`,
    studyUid: sampleUid(`bench study ${Math.floor(number / 100)}`),
    seriesUid: sampleUid(`bench series ${Math.floor(number / 50)}`),
    sopUid: sampleUid(`bench image ${number}`),
    modality: 'CT',
    rows: 512,
    columns: 512,
    instance: number,
    seed: number,
  })
}

function command(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(EXECUTABLE, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`pacsimile ${args.join(' ')}: ${stderr}`)
  return stdout
}

async function patiently(...args: string[]): Promise<void> {
  for (let tries = 0; ; tries++) {
    if (spawnSync(EXECUTABLE, args).status === 0) return
    if (tries > 600) throw new Error(`pacsimile ${args.join(' ')} does not succeed`)
    await pause(50)
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  return typeof address === 'object' && address !== null ? address.port : 0
}

function quantiles(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share: number): string => (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1)
  return `p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, p99 ${at(0.99)} ms`
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

const directory = mkdtempSync(join(tmpdir(), 'pacsimile-bench-'))
const source = join(directory, 'source')
const data = join(directory, 'collector')
const state = join(directory, 'agent')
const replica = join(data, 'replica', 'bench', 'images')
const children: ReturnType<typeof spawn>[] = []

try {
  mkdirSync(join(source, 'live'), { recursive: true })
  let treeBytes = 0
  for (let i = 0; i < TREE_FILES; i++) {
    const shelf = join(source, `series-${Math.floor(i / 50)}`)
    mkdirSync(shelf, { recursive: true })
    const bytes = image(i)
    treeBytes += bytes.length
    writeFileSync(join(shelf, `${i}.dcm`), bytes)
  }
  const copyStarted = performance.now()
  cpSync(source, join(directory, 'copy'), { recursive: true, preserveTimestamps: true })
  spawnSync('sync', ['-f', directory])
  const copySeconds = (performance.now() - copyStarted) / 1000

  const listen = `127.0.0.1:${await freePort()}`
  command('collector', 'init', '--data', data, '--listen', listen)
  children.push(spawn(EXECUTABLE, ['collector', 'run', '--data', data], { stdio: 'ignore' }))
  await patiently('status', '--data', data)
  const token = command('token', 'create', '--data', data).trim()
  command(
    'agent',
    'enroll',
    '--collector',
    `wss://${listen}`,
    '--token',
    token,
    '--name',
    'bench',
    '--state',
    state,
    '--volume',
    `images=${source}`,
  )
  const initialStarted = performance.now()
  children.push(spawn(EXECUTABLE, ['agent', 'run', '--state', state], { stdio: 'ignore' }))
  await patiently('wait', 'bench', '--data', data, '--timeout', '300s')
  const initialSeconds = (performance.now() - initialStarted) / 1000
  const rate = (seconds: number): string => `${(treeBytes / 1e6 / seconds).toFixed(0)} MB/s`
  process.stdout.write(
    `initial: ${TREE_FILES} files, ${(treeBytes / 1e6).toFixed(0)} MB in ${initialSeconds.toFixed(1)} s (${rate(initialSeconds)}); a durable copy of the tree ${copySeconds.toFixed(1)} s (${rate(copySeconds)}): ${(initialSeconds / copySeconds).toFixed(1)} x\n`,
  )

  const lags: number[] = []
  const limits: number[] = []
  for (let i = 0; i < LAG_FILES; i++) {
    const bytes = image(TREE_FILES + i)
    const limitStarted = performance.now()
    const fd = openSync(join(directory, 'limit'), 'w')
    writeSync(fd, bytes)
    fdatasyncSync(fd)
    closeSync(fd)
    limits.push(performance.now() - limitStarted)
    const name = join('live', `${i}.dcm`)
    writeFileSync(join(source, name), bytes)
    const closed = performance.now()
    const file = join(replica, name)
    while (statSync(file, { throwIfNoEntry: false })?.size !== bytes.length || !readFileSync(file).equals(bytes)) await pause(0.5)
    lags.push(performance.now() - closed)
    await pause(Math.max(0, 1000 / RATE_PER_SECOND - (performance.now() - limitStarted)))
  }
  process.stdout.write(
    `lag: ${quantiles(lags)} over ${LAG_FILES} files of 526 KB; one durable copy ${quantiles(limits)}: ${(median(lags) / median(limits)).toFixed(1)} x\n`,
  )
} finally {
  for (const child of children) {
    if (child.exitCode !== null) continue
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
  rmSync(directory, { recursive: true, force: true })
}
