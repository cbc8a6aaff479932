/**
 * What a program does durably, step by step, and what becomes of it when it is killed at one of the steps, or the disk refuses it.
 *
 * Two runs are traced; every system call of them that changes something below a directory is a step: the nth of its name on its file, or,
 * where the file has another name in each run, the nth of its name in its thread. Names that are drawn at random are made to be the same
 * (same-names.ts), those with a time in them are not. A runtime opens a file more or less from one run to the next: so each run is traced
 * too, and made again until the fault was where it was to be. Invariant: a step that is counted was hit. It prevents a sweep of hundreds of
 * kills that all came too late.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { onTestFinished } from 'vitest'
import { sideBySide } from './side-by-side.ts'

/** Whether a test can inject faults here. */
export const canInject = spawnSync('strace', ['-V']).status === 0 || process.env['CI'] !== undefined

/** Which of the steps are taken where not all are: others each time. */
const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const IS_LONG = process.env['PACSIMILE_SOAK'] !== undefined
/** Of all faults every so manieth, from one on, as `2/4` says: a long sweep can be divided among several runs. */
const [PART, PARTS] = (process.env['PACSIMILE_SWEEP_PART'] ?? '1/1').split('/').map(Number) as [number, number]
/** What a test that sweeps is given. */
export const SWEEP_MS_MAX = IS_LONG ? 7_200_000 : 240_000
/** How often a long one says how far it is. */
const TELL_MS = 60_000
/** Longer than a copier waits for a lock that somebody has left. */
const RUN_MS_MAX = 150_000
/** In the order in which they are tried, beside where the step was when it was seen last. */
const NUMBERS_BESIDE = [0, 1, -1, 0, 2, -2, 0, 3, -3, 4, -4, 0, 5, -5, 0]
/** Of the steps on files with a name of their own in each run, some may be out of reach: another thread comes to the same number first. */
const MISSED_SHARE_MAX = 0.1
const SAME_NAMES = join(import.meta.dirname, 'same-names.ts')

export type Fault = 'kill' | 'EIO' | 'ENOSPC'

export interface Step {
  /** Of the system call. */
  readonly call: string
  /** Of those that are on the path, or of all in a thread where it has none. */
  readonly number: number
  /** Below the directory, where it is the same in each run. */
  readonly path: string | undefined
  /** The call and its files, without what is made at random: steps that are alike have the same. */
  readonly kind: string
}

export interface Run {
  readonly stdout: string
  readonly stderr: string
  /** Undefined where it was killed. */
  readonly status: number | undefined
}

/** A program that works below a directory. */
export interface Work {
  readonly directory: string
  readonly command: readonly string[]
  readonly environment?: NodeJS.ProcessEnv
}

export interface Sweep<Prepared extends Work> {
  /** A program that has not run, in a directory of its own. */
  readonly prepare: () => Prepared
  /** Throws where the run, or what it has left, is not as it should be. */
  readonly judge: (prepared: Prepared, ended: Run, fault: Fault, step: Step) => Promise<void>
  /** Only steps on what is there, below the directory; with PACSIMILE_SOAK of the others too, of those that are alike the first and the last. */
  readonly below?: string
  /** Of the steps that are not alike one of so many (PACSIMILE_SEED says which), unless PACSIMILE_SOAK is set. */
  readonly sampleEvery?: number
}

const CALLS = `openat mkdir mkdirat write writev pwrite64 pwritev ftruncate fchmod chmod fsync fdatasync link linkat rename renameat
  renameat2 unlink unlinkat rmdir copy_file_range sendfile`.split(/\s+/)
/** What no disk is too full for. */
const NEVER_FULL = new Set(['unlink', 'unlinkat', 'rmdir', 'fchmod', 'chmod'])

/**
 * Runs a program once for each of its steps and each fault, with the fault in the place of the step. Of steps that are alike the first and
 * the last, and one error after the kills, unless PACSIMILE_SOAK is set. @returns how many runs there were
 */
export async function sweep<Prepared extends Work>({ prepare, judge, below = '', sampleEvery = 1 }: Sweep<Prepared>): Promise<number> {
  const steps = await stepsOf(prepare)
  const [inside, others] = [steps.filter(({ kind }) => kind.includes(below)), steps.filter(({ kind }) => !kind.includes(below))]
  const chosen = IS_LONG ? [...inside, ...eachKind(others)] : eachKind(inside).filter((_, i) => (i + SEED) % sampleEvery === 0)
  const faults = chosen
    .flatMap((step, i) => faultsOf(step, i + SEED).map((fault) => ({ step, fault })))
    .filter((_, i) => i % PARTS === PART - 1)
  let runs = 0
  const missed: string[] = []
  let toldMs = performance.now()
  const tell = (): void => {
    if (!IS_LONG || performance.now() - toldMs < TELL_MS) return
    toldMs = performance.now()
    process.stderr.write(`${runs} of ${faults.length} faults, of ${steps.length} steps; ${missed.length} missed\n`)
  }
  await sideBySide(faults, async ({ step, fault }) => {
    const found = await hit(prepare, step, fault)
    if (found === undefined) {
      missed.push(`${fault} at ${step.kind} (${step.number})`)
      return
    }
    const { prepared, ended } = found
    runs += 1
    try {
      if (fault !== 'kill' && ended.status === undefined) throw new Error('it did not end')
      await judge(prepared, ended, fault, step)
    } catch (error) {
      throw new Error(`${fault} at ${step.kind} (${step.number}), ${ended.status}: ${ended.stdout}\n${ended.stderr}`, { cause: error })
    }
    rmSync(prepared.directory, { recursive: true, force: true })
    tell()
  })
  if (missed.length > Math.max(2, MISSED_SHARE_MAX * faults.length))
    throw new Error(`${missed.length} of ${faults.length} were not hit: ${missed.join(', ')}`)
  return runs
}

function faultsOf({ call }: Step, index: number): Fault[] {
  const errors = (['EIO', 'ENOSPC'] as const).filter((error) => error === 'EIO' || !NEVER_FULL.has(call))
  if (IS_LONG) return ['kill', ...errors]
  const error = errors[index % errors.length]
  return index % 2 === 0 && error !== undefined ? ['kill', error] : ['kill']
}

/** The first and the last of the steps that are alike. */
function eachKind(steps: readonly Step[]): Step[] {
  const kinds = Map.groupBy(steps, ({ kind }) => kind)
  return [...kinds.values()].flatMap((same) => [...new Set([same[0], same.at(-1)])].filter((step) => step !== undefined))
}

/** The steps of a program that it takes below its directory, which it changes. */
async function stepsOf(prepare: () => Work): Promise<Step[]> {
  const [one, other] = [await callsOf(prepare()), await callsOf(prepare())]
  const again = new Set(other.flatMap(({ paths }) => paths))
  const counts = new Map<string, number>()
  const next = (of: string): number => {
    const number = (counts.get(of) ?? 0) + 1
    counts.set(of, number)
    return number
  }
  const steps = new Map<string, Step>()
  for (const { thread, call, kind, paths } of one) {
    const inThread = next(`${thread} ${call}`)
    const stable = new Map([...new Set(paths)].filter((path) => again.has(path)).map((path) => [path, next(`${thread} ${call} ${path}`)]))
    if (kind === undefined) continue
    // Of a rename strace compares the first path alone.
    const path = (call === 'rename' ? paths.slice(0, 1) : paths).findLast((one) => stable.has(one))
    const number = path === undefined ? inThread : (stable.get(path) ?? 1)
    steps.set(`${call} ${path} ${number}`, { call, number, path, kind })
  }
  return [...steps.values()]
}

/** The calls of a run that ends as it should. */
async function callsOf(work: Work): Promise<Call[]> {
  const { ended, lines } = await traced(work, CALLS, [])
  if (ended.status !== 0) throw new Error(`${work.command.join(' ')} ended with ${ended.status}: ${ended.stdout} ${ended.stderr}`)
  rmSync(work.directory, { recursive: true })
  return lines.flatMap((line) => callIn(line, work) ?? [])
}

interface Call {
  readonly thread: string
  readonly call: string
  /** Undefined where it changes nothing below the directory. */
  readonly kind: string | undefined
  /** Below the directory. */
  readonly paths: readonly string[]
}

function callIn(line: string, { directory }: Work): Call | undefined {
  const [, thread, call, args = ''] = /^(\d+) +(\w+)\((.*)$/.exec(line) ?? []
  if (thread === undefined || call === undefined) return undefined
  const paths = [...args.matchAll(new RegExp(`${directory}([^">]*)`, 'g'))].map(([, path = '']) => path)
  const isStep = paths.length > 0 && (call !== 'openat' || /O_CREAT|O_TRUNC/.test(args))
  return { thread, call, paths, kind: isStep ? `${call} ${[...new Set(paths.map(alike))].join(' ')}` : undefined }
}

function alike(path: string): string {
  return path
    .replaceAll(/-[0-9a-f]{12}\b/g, '-R')
    .replaceAll(/[0-9a-f]{8}\.json/g, 'ID.json')
    .replaceAll(/\d{13}/g, 'TIME')
    .replaceAll(/\/\d{6}\./g, '/N.')
}

async function hit<Prepared extends Work>(
  prepare: () => Prepared,
  { call, number, kind, path }: Step,
  fault: Fault,
): Promise<{ prepared: Prepared; ended: Run } | undefined> {
  const how = fault === 'kill' ? 'signal=KILL' : `error=${fault}`
  const met = new Set<string>()
  let expected = number
  for (const beside of NUMBERS_BESIDE) {
    const prepared = prepare()
    const place = path === undefined ? [] : ['-P', `${prepared.directory}${path}`]
    const when = Math.max(1, expected + beside)
    const { ended, lines } = await traced(prepared, [call], [...place, '-e', `inject=${call}:${how}:when=${when}`])
    const hits = lines.filter((line) => (fault === 'kill' ? /= \?$|unfinished/.test(line) : line.includes('(INJECTED)')))
    for (const line of hits) met.add(callIn(line, prepared)?.kind ?? line)
    if (met.has(kind)) return { prepared, ended }
    // Where the fault came too late, the step was passed, and its number in this run is known.
    if (path === undefined) expected = numberOf(kind, lines, prepared) ?? expected
    rmSync(prepared.directory, { recursive: true, force: true })
  }
  if (path === undefined) return undefined
  throw new Error(`No ${fault} came to ${kind} (${number}), but to ${[...met].join(', ')}`)
}

/** As the first of its kind in its thread. */
function numberOf(kind: string, lines: readonly string[], work: Work): number | undefined {
  const counts = new Map<string, number>()
  for (const line of lines) {
    const found = callIn(line, work)
    if (found === undefined) continue
    const number = (counts.get(found.thread) ?? 0) + 1
    counts.set(found.thread, number)
    if (found.kind === kind) return number
  }
  return undefined
}

async function traced(work: Work, calls: readonly string[], options: readonly string[]): Promise<{ ended: Run; lines: string[] }> {
  const scratch = mkdtempSync(join(tmpdir(), 'pacsimile-trace-'))
  const trace = join(scratch, 'trace')
  try {
    // Calls that are not looked at are not stopped at; a signal would be lost with it.
    const pace = options.some((option) => option.includes(':signal=')) ? [] : ['--seccomp-bpf']
    const command = ['strace', '-f', ...pace, '-qq', '-y', '-o', trace, '-e', `trace=${calls.join()}`, ...options, ...work.command]
    // A runtime that keeps what it has compiled writes files of its own, more of them the first time: calls would be counted that are not there again.
    const environment = { ...work.environment, NODE_DISABLE_COMPILE_CACHE: '1', NODE_OPTIONS: `--import=${SAME_NAMES}` }
    const ended = await run({ command, environment })
    return { ended, lines: readFileSync(trace, 'utf8').split('\n') }
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

export async function run({ command: [command = '', ...args], environment = {} }: Pick<Work, 'command' | 'environment'>): Promise<Run> {
  // strace counts calls for each thread.
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1', ...environment }
  // A group of its own, because strace does not end what it traces.
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env, detached: true })
  const end = (): void => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) process.kill(-child.pid, 'SIGKILL')
  }
  onTestFinished(end)
  // Whatever it waits for then, it waits for ever: that it was killed is what is seen of it.
  const timer = setTimeout(end, RUN_MS_MAX)
  const ended = new Promise<number | undefined>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status) => resolve(status === null || status === 137 ? undefined : status))
  })
  const [stdout, stderr, status] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  clearTimeout(timer)
  return { stdout, stderr, status }
}
