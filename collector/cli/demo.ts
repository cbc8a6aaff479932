/**
 * The main job on real input, told as a story: protect an archive, lose it, bring back the second before, compare.
 *
 * Invariant: the demo succeeds only when an independent record of the truth equals what was restored, from the running
 * collector and from the bare repository. It prevents a demonstration that demonstrates nothing.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { PacsimileError } from '../../shared/errors.ts'
import { showMoment } from '../point.ts'
import { compareRecords, DemoArchive, type Record, recordOf, STUDIES, study } from './demo-archive.ts'
import { LagMeter } from './demo-lag.ts'
import { DemoSite, freePort } from './demo-site.ts'
import { paint, say, sayJson, showBytes, showCount, showDuration } from './output.ts'

export interface DemoOptions {
  readonly stay: boolean
  readonly json: boolean
  readonly directory: string | undefined
}

/** Studies that are there before the agent starts. */
const EARLY_STUDIES = 4
const TARGET = 'pacs1:images'
/** 128 + SIGINT. */
const INTERRUPTED = 130

interface Figures {
  readonly seconds: number
  readonly images: number
  readonly lagCount: number
  readonly lagP50Ms: number
  readonly lagP99Ms: number
  readonly restoredAt: string
  readonly restoredFiles: number
  readonly restoredBytes: number
  readonly onlineSeconds: number
  readonly offlineSeconds: number
  readonly repositoryBytes: number
  readonly checkedBytes: number
}

/** @returns the exit status @throws what failed, when the demo fails */
export async function runDemo(options: DemoOptions): Promise<number> {
  const directory = options.directory === undefined ? mkdtempSync(join(tmpdir(), 'pacsimile-demo-')) : resolve(options.directory)
  mkdirSync(directory, { recursive: true })
  if (readdirSync(directory).length > 0) throw new PacsimileError('target-not-empty', `${directory} is not empty`)
  const interrupted = new AbortController()
  const interrupt = (): void => interrupted.abort()
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  const demo = new Demo(directory, options.json)
  try {
    const figures = await orInterrupted(demo.run(), interrupted.signal)
    if (options.json) sayJson({ ok: true, directory: options.stay ? directory : undefined, ...figures })
    if (options.stay) await demo.stay(interrupted.signal)
    return 0
  } finally {
    await demo.end()
    if (!options.stay) rmSync(directory, { recursive: true, force: true })
    // The story would go on telling itself, with nobody to listen and its directory gone.
    if (interrupted.signal.aborted) process.exit(INTERRUPTED)
  }
}

async function orInterrupted<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(new PacsimileError('incomplete', 'The demo was interrupted')), { once: true })
    work.then(resolve, reject)
  })
}

class Demo {
  readonly #directory: string
  readonly #quiet: boolean
  readonly #site: DemoSite
  readonly #archive: DemoArchive
  readonly #started = performance.now()

  constructor(directory: string, quiet: boolean) {
    this.#directory = directory
    this.#quiet = quiet
    this.#site = new DemoSite(directory)
    this.#archive = new DemoArchive(join(directory, 'pacs'))
  }

  #say(line = ''): void {
    if (!this.#quiet) say(line)
  }

  #step(title: string): void {
    this.#say()
    this.#say(paint('bold', title))
  }

  async run(): Promise<Figures> {
    const images = await this.#setUp()
    const lag = await this.#work()
    const { truth, at } = await this.#disaster()
    const online = await this.#restore(truth, at, 'restored', ['--data', this.#site.data], 'from the running collector')
    await this.#site.end('collector', 'SIGKILL')
    this.#step('The collector is killed (kill -9). What is left is the repository and its key.')
    const offline = await this.#restore(truth, at, 'restored-offline', ['--repository', this.#site.repository], 'from the bare repository')
    const check = (await this.#site.command('check', '--repository', this.#site.repository)) as {
      bytes: number
      chunks: number
      records: number
    }
    this.#say(`  check read ${showBytes(check.bytes)}: ${check.records} records, ${check.chunks} chunks, every one as it was written`)
    const figures: Figures = {
      seconds: (performance.now() - this.#started) / 1000,
      images: images + lag.count,
      lagCount: lag.count,
      lagP50Ms: lag.quantile(0.5),
      lagP99Ms: lag.quantile(0.99),
      restoredAt: at,
      restoredFiles: online.files,
      restoredBytes: online.bytes,
      onlineSeconds: online.seconds,
      offlineSeconds: offline.seconds,
      repositoryBytes: sizeOf(this.#site.repository),
      checkedBytes: check.bytes,
    }
    this.#sum(figures)
    return figures
  }

  async #setUp(): Promise<number> {
    this.#step('A PACS with a collector beside it')
    let images = 0
    for (let number = 1; number <= EARLY_STUDIES; number++) {
      for (const image of study(number)) {
        this.#archive.store(image)
        images += 1
      }
    }
    const foreign = this.#archive.storeForeignFiles()
    this.#say(
      `  an archive of ${showCount(EARLY_STUDIES, 'study', 'studies')} in ${this.#archive.root}, ${showCount(images, 'image')}${foreign > 0 ? `, and ${foreign} DICOM files of other makers` : ''}`,
    )
    const listen = `127.0.0.1:${await freePort()}`
    await this.#site.command('collector', 'init', '--data', this.#site.data, '--listen', listen)
    this.#site.start('collector')
    await this.#site.patiently('status', '--data', this.#site.data)
    const { token } = (await this.#site.command('token', 'create', '--data', this.#site.data)) as { token: string }
    await this.#site.command(
      'agent',
      'enroll',
      '--collector',
      `wss://${listen}`,
      '--token',
      token,
      '--name',
      'pacs1',
      '--state',
      this.#site.state,
      '--volume',
      `images=${this.#archive.root}`,
    )
    this.#site.start('agent')
    await this.#site.patiently('wait', 'pacs1', '--data', this.#site.data)
    this.#say(`  the agent is enrolled, has scanned the archive, and everything is in the replica (mutual TLS on ${listen})`)
    return images + foreign
  }

  /** A day's work: studies arrive, a patient is merged, a study is deleted. */
  async #work(): Promise<LagMeter> {
    this.#step('Studies arrive')
    const lag = new LagMeter(this.#site.replica)
    for (let number = EARLY_STUDIES + 1; number <= STUDIES; number++) {
      for (const image of study(number)) await lag.follow(image, this.#archive.store(image))
    }
    this.#say(
      `  ${showCount(lag.count, 'image')}, each in the replica ${paint('cyan', `${lag.quantile(0.5).toFixed(0)} ms`)} after its close() (median; p99 ${lag.quantile(0.99).toFixed(0)} ms)`,
    )
    const before = sizeOf(this.#site.repository)
    const merged = this.#archive.mergePatient(6, 'MERGED^PATIENT')
    await this.#site.command('wait', 'pacs1', '--data', this.#site.data)
    this.#say(
      `  a patient merge rewrites ${showCount(merged, 'header')}: the history grows by ${showBytes(sizeOf(this.#site.repository) - before)}`,
    )
    this.#archive.deleteStudy(2)
    this.#say('  an old study is deleted')
    return lag
  }

  async #disaster(): Promise<{ truth: Record; at: string }> {
    await this.#site.command('wait', 'pacs1', '--data', this.#site.data)
    const truth = recordOf(this.#archive.root)
    const ms = Date.now()
    await new Promise((resolve) => setTimeout(resolve, 1000))
    this.#step('Ransomware')
    const hit = this.#archive.encryptEverything()
    await this.#site.command('wait', 'pacs1', '--data', this.#site.data)
    this.#say(`  ${showCount(hit, 'image')} encrypted and renamed, the index deleted; the replica has faithfully followed`)
    this.#say(
      `  the second before was ${showMoment(ms)}; what the archive held then was noted independently: ${showCount(truth.size, 'path')}`,
    )
    return { truth, at: new Date(ms).toISOString() }
  }

  async #restore(
    truth: Record,
    at: string,
    name: string,
    from: readonly string[],
    where: string,
  ): Promise<{ files: number; bytes: number; seconds: number }> {
    this.#step(`pacsimile restore ${TARGET} --at ${at}`)
    const to = join(this.#directory, name)
    const report = (await this.#site.command('restore', TARGET, '--at', at, '--to', to, ...from)) as {
      files: number
      bytes: number
      seconds: number
    }
    this.#say(
      `  ${where}: ${showCount(report.files, 'file')}, ${showBytes(report.bytes)} in ${showDuration(report.seconds * 1000)}, every byte verified`,
    )
    const wrong = compareRecords(truth, recordOf(to))
    if (wrong.length > 0)
      throw new PacsimileError(
        'incomplete',
        `The restored archive differs from the truth in ${wrong.length} places:\n${wrong.slice(0, 20).join('\n')}`,
      )
    this.#say(
      `  compared with the independent record: ${paint('green', `all ${truth.size} paths are equal`)} (content, mode, owner, times)`,
    )
    return report
  }

  #sum(figures: Figures): void {
    this.#step('In short')
    this.#say(
      `  lag p50 ${figures.lagP50Ms.toFixed(0)} ms, p99 ${figures.lagP99Ms.toFixed(0)} ms over ${figures.lagCount} images; lost: nothing; ${figures.seconds.toFixed(0)} s in all`,
    )
    this.#say(
      `  repository ${showBytes(figures.repositoryBytes)}, encrypted: every version of everything, for ${showBytes(figures.restoredBytes)} of files at that moment`,
    )
  }

  /** Keeps both running until the signal is given. */
  async stay(signal: AbortSignal): Promise<void> {
    this.#site.start('collector')
    await this.#site.patiently('status', '--data', this.#site.data)
    const data = `--data ${this.#site.data}`
    this.#step('Still running; Ctrl-C ends it. To play with:')
    for (const line of [
      `pacsimile status ${data}`,
      `pacsimile log ${TARGET} ${data} | tail`,
      `pacsimile ls ${TARGET}/2026/11 --at "1m ago" ${data}`,
      `pacsimile window ${TARGET} ${data}`,
      `pacsimile agent status --state ${this.#site.state}`,
    ])
      this.#say(`  ${line}`)
    this.#say(
      `  the archive is ${this.#archive.root}, the replica ${this.#site.replica}, the restored archive ${join(this.#directory, 'restored')}`,
    )
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    this.#say(`  what is in ${this.#directory} stays; delete it when you are done`)
  }

  end(): Promise<void> {
    return this.#site.endAll()
  }
}

function sizeOf(path: string): number {
  const stat = statSync(path)
  return stat.isDirectory() ? readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0) : stat.size
}
