/**
 * The main job on real input, told as a story: protect an archive, lose it, bring back the second before, compare.
 *
 * Invariant: the story ends well only when an independent record of the truth equals what was restored, from the running
 * collector and from the bare repository. It prevents a demonstration that demonstrates nothing.
 */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PacsimileError } from '../../shared/errors.ts'
import { showLocalTime, showMoment } from '../point.ts'
import { showBytes, showCount, showDuration } from './amounts.ts'
import { DemoArchive, INDEX_FILE, STUDIES, study } from './demo-archive.ts'
import { readIndex } from './demo-index.ts'
import { LagMeter } from './demo-lag.ts'
import { type DemoSite, freePort, launcher } from './demo-site.ts'
import { differences, type Truth, truthOf } from './demo-truth.ts'
import { paint, say } from './output.ts'

/** Studies that are there before the agent starts. */
const EARLY_STUDIES = 4
const MERGED_STUDY = 6
const DELETED_STUDY = 2
const TARGET = 'pacs1:images'
/** Between the last quiet moment and the disaster. */
const QUIET_MS = 1000
/** One image each so many ms: 33 a second, as from a busy scanner or two. */
const ARRIVAL_MS = 30

export interface Figures {
  readonly seconds: number
  readonly images: number
  readonly lagCount: number
  readonly lagP50Ms: number
  readonly lagP99Ms: number
  readonly lagMaxMs: number
  readonly restoredAt: string
  readonly restoredFiles: number
  readonly restoredBytes: number
  readonly onlineSeconds: number
  readonly offlineSeconds: number
  /** Before the disaster. */
  readonly repositoryBytes: number
  /** With what the ransomware wrote. */
  readonly repositoryBytesAtEnd: number
  readonly checkedBytes: number
}

interface Restored {
  readonly files: number
  readonly bytes: number
  readonly seconds: number
}

export class DemoStory {
  readonly #site: DemoSite
  readonly #archive: DemoArchive
  readonly #isTold: boolean
  readonly #stays: boolean
  readonly #started = performance.now()
  #steps = 0

  constructor(site: DemoSite, { isTold, stays }: { readonly isTold: boolean; readonly stays: boolean }) {
    this.#site = site
    this.#archive = new DemoArchive(join(site.directory, 'pacs'))
    this.#isTold = isTold
    this.#stays = stays
  }

  #say(line = ''): void {
    if (this.#isTold) say(line)
  }

  #step(title: string): void {
    this.#say()
    this.#say(paint('bold', `${++this.#steps}. ${title}`))
  }

  /** A line of what is where. */
  #place(name: string, what: string): void {
    this.#say(`   ${name.padEnd(12)} ${what}`)
  }

  async run(signal: AbortSignal): Promise<Figures> {
    this.#say('An image archive is protected, destroyed, and brought back.')
    const early = await this.#setUp(signal)
    const lag = await this.#arrivals(signal)
    await this.#dayOfWork()
    const { truth, at, repositoryBytes } = await this.#disaster(signal)
    const online = await this.#restore(truth, at, 'restored', ['--data', this.#site.data])
    await this.#site.kill('collector')
    this.#step('And with the collector dead: kill -9, then the same from the bare repository and its key')
    const offline = await this.#restore(truth, at, 'restored-offline', ['--repository', this.#site.repository])
    const checkedBytes = await this.#check()
    const figures: Figures = {
      seconds: (performance.now() - this.#started) / 1000,
      images: early + lag.count,
      lagCount: lag.count,
      lagP50Ms: lag.quantile(0.5),
      lagP99Ms: lag.quantile(0.99),
      lagMaxMs: lag.quantile(1),
      restoredAt: at,
      restoredFiles: online.files,
      restoredBytes: online.bytes,
      onlineSeconds: online.seconds,
      offlineSeconds: offline.seconds,
      repositoryBytes,
      repositoryBytesAtEnd: sizeOf(this.#site.repository),
      checkedBytes,
    }
    this.#sum(figures)
    return figures
  }

  /** @returns how many images are there */
  async #setUp(signal: AbortSignal): Promise<number> {
    this.#step('A PACS, and Pacsimile beside it')
    let images = 0
    for (let number = 1; number <= EARLY_STUDIES; number++) {
      for (const image of study(number)) {
        await this.#archive.store(image)
        images += 1
      }
      this.#archive.file(number)
      signal.throwIfAborted()
    }
    const foreign = this.#archive.storeForeignFiles()
    const others = foreign > 0 ? `, ${foreign} DICOM files of other makers` : ''
    this.#place('archive', `${showCount(EARLY_STUDIES, 'study', 'studies')}, ${showCount(images, 'image')}${others}, an SQLite index`)
    const { data, state } = this.#site
    const listen = `127.0.0.1:${await freePort()}`
    await this.#site.command('collector', 'init', '--data', data, '--listen', listen)
    this.#site.start('collector')
    await this.#site.patiently('status', '--data', data)
    this.#place('collector', `keeps the history, encrypted, and a live replica; TLS 1.3 on ${listen}, certificates on both sides`)
    const { token } = (await this.#site.command('token', 'create', '--data', data)) as { token: string }
    const enrolment = ['--collector', `wss://${listen}`, '--token', token, '--name', 'pacs1', '--volume', `images=${this.#archive.root}`]
    await this.#site.command('agent', 'enroll', ...enrolment, '--state', state)
    const started = performance.now()
    this.#site.start('agent')
    await this.#site.patiently('wait', 'pacs1', '--data', data)
    const taken = showDuration(performance.now() - started)
    this.#place('agent', `enrolled with a one-time token; has scanned the archive: all of it is in the replica after ${taken}`)
    return images + foreign
  }

  async #arrivals(signal: AbortSignal): Promise<LagMeter> {
    this.#step('Studies arrive, image by image')
    const lag = new LagMeter(this.#site.replica)
    await Promise.all([this.#arrive(lag, signal).finally(() => lag.end()), lag.run(signal)])
    const median = paint('cyan', `${lag.quantile(0.5).toFixed(0)} ms`)
    this.#say(
      `   ${showCount(lag.count, 'image')}, one each ${ARRIVAL_MS} ms: the same bytes are in the replica ${median} after close() on the PACS`,
    )
    this.#say(`   (median; p99 ${lag.quantile(0.99).toFixed(0)} ms, slowest ${lag.quantile(1).toFixed(0)} ms)`)
    return lag
  }

  async #arrive(lag: LagMeter, signal: AbortSignal): Promise<void> {
    const numbers = Array.from({ length: STUDIES - EARLY_STUDIES }, (_, index) => EARLY_STUDIES + 1 + index)
    // Made before the first of them is due: making them meanwhile would be measured as lag.
    const studies = numbers.map((number) => ({ number, images: [...study(number)] }))
    const began = performance.now()
    let arrived = 0
    for (const { number, images } of studies) {
      for (const image of images) {
        await sleep(Math.max(0, began + arrived * ARRIVAL_MS - performance.now()), undefined, { signal })
        lag.expect(image, await this.#archive.store(image))
        arrived += 1
      }
      this.#archive.file(number)
    }
  }

  async #dayOfWork(): Promise<void> {
    this.#step('A day of work')
    await this.#settled()
    const before = sizeOf(this.#site.repository)
    const { images, bytes } = this.#archive.mergePatient(MERGED_STUDY, 'MERGED^PATIENT')
    await this.#settled()
    const growth = showBytes(sizeOf(this.#site.repository) - before)
    this.#say(
      `   two patients are merged: ${showCount(images, 'header')} rewritten, ${showBytes(bytes)} of files; the history grows by ${growth}`,
    )
    this.#archive.deleteStudy(DELETED_STUDY)
    this.#say('   an old study is deleted')
  }

  async #settled(): Promise<void> {
    await this.#site.patiently('wait', 'pacs1', '--data', this.#site.data)
  }

  /** Everything is in the history, whatever becomes of the replica. */
  async #recorded(name: string): Promise<void> {
    await this.#site.patiently('mark', TARGET, name, '--data', this.#site.data)
  }

  async #disaster(signal: AbortSignal): Promise<{ truth: Truth; at: string; repositoryBytes: number }> {
    await this.#settled()
    const truth = truthOf(this.#archive.root)
    const ms = Date.now()
    const repositoryBytes = sizeOf(this.#site.repository)
    await sleep(QUIET_MS, undefined, { signal })
    this.#step('Ransomware')
    this.#say(`   ${showLocalTime(ms)}: all is well. Independently of Pacsimile, the demo notes`)
    this.#say(`   what the archive holds: ${showCount(truth.size, 'path')}, with SHA-256, mode, owner and times of each`)
    const { locked, deleted } = this.#archive.encryptEverything()
    await this.#recorded('ransomware')
    this.#say(`   one second later: ${showCount(locked, 'image')} overwritten and renamed, ${deleted} deleted, and the index.`)
    // The breaker may need a moment more than the history.
    await this.#site.patiently('replica', 'rewind', TARGET, '--data', this.#site.data)
    this.#say('   The history has all of it. The replica was paused when it saw what happened, and is rewound to the moment before:')
    this.#say(`   $ pacsimile replica rewind ${TARGET}`)
    return { truth, at: new Date(ms).toISOString(), repositoryBytes }
  }

  async #restore(truth: Truth, at: string, name: string, from: readonly string[]): Promise<Restored> {
    const to = join(this.#site.directory, name)
    const args = ['restore', TARGET, '--at', at, '--to', to, ...from]
    if (name === 'restored') this.#step(`Back to ${showMoment(Date.parse(at))}`)
    this.#say(`   $ pacsimile ${args.join(' ')}`)
    const report = (await this.#site.command(...args)) as Restored
    const rate = showBytes(report.bytes / report.seconds)
    this.#say(
      `   ${showCount(report.files, 'file')}, ${showBytes(report.bytes)} in ${showDuration(report.seconds * 1000)} (${rate}/s), every byte verified`,
    )
    const wrong = differences(truth, truthOf(to))
    if (wrong.length > 0) {
      throw new PacsimileError('incomplete', `The restored archive differs from the truth in ${wrong.length} places:\n${wrong.join('\n')}`)
    }
    const images = checkIndex(to)
    const verdict = paint('green', `all ${truth.size} paths are equal`)
    this.#say(`   compared with the independent record: ${verdict} in content, mode, owner and times`)
    this.#say(`   SQLite opens the index (captured while in use) and finds it whole; the ${showCount(images, 'image')} it lists are there`)
    return report
  }

  /** @returns how many bytes were read */
  async #check(): Promise<number> {
    const args = ['check', '--repository', this.#site.repository]
    this.#say(`   $ pacsimile ${args.join(' ')}`)
    const check = (await this.#site.command(...args)) as { bytes: number; chunks: number; records: number }
    this.#say(
      `   ${showBytes(check.bytes)} read: ${showCount(check.records, 'record')}, ${showCount(check.chunks, 'chunk')}, every one as it was written`,
    )
    return check.bytes
  }

  #sum({ lagP50Ms, lagP99Ms, lagCount, repositoryBytes, repositoryBytesAtEnd, restoredBytes, seconds }: Figures): void {
    this.#say()
    this.#say(paint('bold', `Nothing was lost. ${seconds.toFixed(0)} s in all.`))
    this.#place('lag', `p50 ${lagP50Ms.toFixed(0)} ms, p99 ${lagP99Ms.toFixed(0)} ms, over ${showCount(lagCount, 'image')}`)
    this.#place(
      'history',
      `${showBytes(repositoryBytes)} for ${showBytes(restoredBytes)} of files and all their versions; ${showBytes(repositoryBytesAtEnd)} with the ransomware's`,
    )
    this.#say()
    this.#say(
      this.#stays ? 'Where things are:' : `Where things were (\`${launcher()} demo --stay\` leaves them there, running, to play with):`,
    )
    this.#place('archive', this.#archive.root)
    this.#place('replica', this.#site.replica)
    this.#place('repository', this.#site.repository)
    this.#place('its key', join(this.#site.data, 'keys', 'repository.key'))
    this.#place('restored', join(this.#site.directory, 'restored'))
  }

  /** Keeps both running until the signal is given. */
  async stay(before: string, signal: AbortSignal): Promise<void> {
    this.#site.start('collector')
    // Once the agent has found the collector again, what is changed by hand is seen at once.
    await this.#recorded('again')
    const program = launcher()
    this.#say()
    this.#say(paint('bold', 'Collector and agent are running again; Ctrl-C ends them. Try:'))
    this.#say(`   export PACSIMILE_DATA=${this.#site.data} PACSIMILE_STATE=${this.#site.state}`)
    for (const line of [
      'status',
      'agent status',
      `window ${TARGET}`,
      `ls ${TARGET}/2026/11 --at ${before}`,
      `log ${TARGET} --from=${before} | less`,
      `restore ${TARGET}/2026/11/study-01 --at ${before} --to /tmp/study-01 --dry-run`,
    ])
      this.#say(`   ${program} ${line}`)
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
  }
}

/** What a PACS would find on the restored files. @returns how many images the index lists @throws incomplete */
function checkIndex(root: string): number {
  const { verdict, paths } = readIndex(join(root, INDEX_FILE))
  if (verdict !== 'ok') throw new PacsimileError('incomplete', `The restored index is damaged: ${verdict}`)
  const absent = paths.filter((path) => !existsSync(join(root, path)))
  if (absent.length > 0) throw new PacsimileError('incomplete', `The restored index lists ${absent.length} images that are not there`)
  return paths.length
}

function sizeOf(path: string): number {
  const stat = statSync(path)
  return stat.isDirectory() ? readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0) : stat.size
}
