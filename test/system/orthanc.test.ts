import { hash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { dicomFile, sampleUid } from '../../collector/cli/dicom-sample.ts'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { hasOrthanc, Orthanc } from '../support/orthanc.ts'
import { readIndex, storageFaults } from '../support/orthanc-index.ts'
import { sideBySide } from '../support/side-by-side.ts'
import { type LogLine, Site } from '../support/site.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const SOAK = process.env['PACSIMILE_SOAK'] === '1'
const SECONDS = SOAK ? 60 : 4
/** Restored for a new Orthanc: at any time while it stores. One more is of a moment of rest. */
const MOMENTS = SOAK ? 20 : 4
/** The most that a restored moment may be behind the moment that was asked for. */
const LAG_MS_MAX = 10_000
const STORAGE = 'orthanc'
const LIMIT = { timeout: (150 + SECONDS * 10) * 1000 }

/** What Orthanc has after one more of the things that it was asked for, one after the other. */
interface State {
  /** The SHA-256 of each instance's file. */
  readonly instances: ReadonlyMap<string, string>
  readonly askedMs: number
  readonly doneMs: number
}

/** One modality that sends study after study, and somebody who removes some. */
class Work {
  readonly states: State[] = [{ instances: new Map(), askedMs: 0, doneMs: Date.now() }]
  readonly #orthanc: Orthanc
  readonly #random: Random
  readonly #studies: { readonly study: string; readonly instances: string[] }[] = []
  #made = 0

  constructor(orthanc: Orthanc, random: Random) {
    this.#orthanc = orthanc
    this.#random = random
  }

  async run(seconds: number): Promise<void> {
    const endMs = Date.now() + seconds * 1000
    while (Date.now() < endMs) {
      if (this.#studies.length > 2 && this.#random.below(3) === 0) await this.#remove()
      else await this.#store(1 + this.#random.below(8))
      await setTimeout(this.#random.below(4) === 0 ? 300 : this.#random.below(30))
    }
  }

  async #store(count: number): Promise<void> {
    const number = ++this.#made
    const studyUid = sampleUid(`orthanc ${SEED} ${number}`)
    const seriesUid = sampleUid(`${studyUid} series`)
    const patient = { patientName: `Orthanc^${number}`, patientId: `O-${number}` }
    const instances: string[] = []
    for (let instance = 1; instance <= count; instance++) {
      const side = this.#random.below(5) === 0 ? 256 : 64
      const image = { modality: 'CT', rows: side, columns: side, instance, seed: number }
      const file = dicomFile({ ...patient, studyUid, seriesUid, sopUid: sampleUid(`${studyUid} ${instance}`), ...image })
      await this.#do(async (held) => {
        const stored = await this.#orthanc.store(file)
        held.set(stored.instance, hash('sha256', file))
        if (instances.push(stored.instance) === 1) this.#studies.push({ study: stored.study, instances })
      })
    }
  }

  async #remove(): Promise<void> {
    const [removed] = this.#studies.splice(this.#random.below(this.#studies.length), 1)
    if (removed === undefined) return
    await this.#do(async (held) => {
      await this.#orthanc.remove(removed.study)
      for (const instance of removed.instances) held.delete(instance)
    })
  }

  async #do(act: (held: Map<string, string>) => Promise<void>): Promise<void> {
    const instances = new Map(this.states.at(-1)?.instances)
    const askedMs = Date.now()
    await act(instances)
    this.states.push({ instances, askedMs, doneMs: Date.now() })
  }
}

/**
 * What is wrong with what a restored Orthanc serves, in words: it must be all that the other one had after one of the things that it was
 * asked for by then, and not long before.
 */
function faultsOf(served: ReadonlyMap<string, string>, states: readonly State[], ms: number): string[] {
  const alike = states.flatMap(({ instances, askedMs }, at) =>
    sameMaps(instances, served) ? [{ askedMs, endedMs: states[at + 1]?.doneMs ?? Number.POSITIVE_INFINITY }] : [],
  )
  const [last] = alike.filter(({ askedMs }) => askedMs <= ms).slice(-1)
  if (last !== undefined) return last.endedMs > ms - LAG_MS_MAX ? [] : [`what is served is ${ms - last.endedMs} ms old`]
  return [alike.length === 0 ? `${served.size} instances are served as there never were` : 'what is served was asked for later']
}

function sameMaps(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value)
}

/** Where in the history a file that the index names is not there: before it was recorded, or after it was removed. */
async function unordered(site: Site): Promise<{ faults: string[]; indexes: number; removals: number }> {
  const there = new Set<string>()
  let named = new Set<string>()
  const found = { faults: [] as string[], indexes: 0, removals: 0 }
  const below = `${STORAGE}/`
  const lines = site.log({ path: STORAGE }).map((line) => ({ ...line, name: (line.path ?? '').slice(below.length) }))
  const isIndex = ({ name, time }: LogLine & { name: string }, at: string): boolean =>
    (name === 'index' || name === 'index-wal') && time === at
  const isLastOfIndex = (line: LogLine & { name: string }, next: (LogLine & { name: string }) | undefined): boolean =>
    isIndex(line, line.time) && (next === undefined || !isIndex(next, line.time))
  const indexes = new Map<number, ReturnType<typeof readIndex>>()
  await sideBySide(
    lines.filter((line, i) => isLastOfIndex(line, lines[i + 1])),
    async ({ seq }) => {
      indexes.set(seq, readIndex(await site.restoreBeside(`seq:${seq}`, { path: STORAGE, options: ['--include', 'index*'] })))
    },
  )
  for (const { op, name, time, seq, version } of lines) {
    if (op === 'remove') {
      for (const path of there) if (path === name || path.startsWith(`${name}/`)) there.delete(path)
      for (const path of named)
        if (path === name || path.startsWith(`${name}/`)) found.faults.push(`${time}: ${path} is removed, and the index names it`)
      found.removals += 1
    } else if (version?.kind === 'file') there.add(name)
    const index = indexes.get(seq)
    if (index === undefined) continue
    const { faults, files } = index
    named = new Set(files.map(({ path }) => path))
    found.indexes += 1
    found.faults.push(...faults.map((fault) => `${time}: ${fault}`))
    for (const path of named) if (!there.has(path)) found.faults.push(`${time}: ${path} is named before it is there`)
  }
  return found
}

describe.skipIf(!canMount || !hasOrthanc)(`an Orthanc that is protected while it stores (PACSIMILE_SEED=${SEED})`, () => {
  it('comes back at any moment with exactly what it had by then, and starts on it', LIMIT, async () => {
    const { at } = makeFilesystem('ext4', 1 << 30)
    const site = await Site.watching({ source: at })
    const orthanc = await Orthanc.start(join(at, STORAGE))
    const random = new Random(SEED)
    const work = new Work(orthanc, random)
    const { states } = work
    await site.wait()
    const firstMs = Date.now()

    await work.run(SECONDS)
    await site.wait()
    const rest = { ms: Date.now(), served: await orthanc.served(), lastChange: await orthanc.lastChange() }
    await setTimeout(1)
    await work.run(SECONDS)
    const lastMs = Date.now()
    await site.wait()
    expect(await orthanc.stop(), 'errors of the protected Orthanc').toEqual([])
    site.expectNothingMissed()

    // At any time while it stores.
    const busy = Array.from({ length: MOMENTS }, () => firstMs + random.below(lastMs - firstMs))
    await sideBySide([...busy, rest.ms], async (ms) => {
      const copy = join(await site.restoreBeside(new Date(ms).toISOString()), STORAGE)
      expect(storageFaults(copy), `index and files at ${ms}`).toEqual([])
      const restored = await Orthanc.start(copy)
      const served = await restored.served()
      expect(faultsOf(served, states, ms), `served at ${ms}`).toEqual([])
      if (ms === rest.ms) {
        expect(served, 'what it served then').toEqual(rest.served)
        expect(await restored.lastChange(), 'its last change then').toBe(rest.lastChange)
      }
      expect(await restored.stop(), `errors of the Orthanc of ${ms}`).toEqual([])
    })
    // It shows that a copy of another moment would be told, and one in which a single instance is too many, or another.
    for (const ms of [firstMs - 1, lastMs + LAG_MS_MAX]) expect(faultsOf(rest.served, states, ms)).toHaveLength(1)
    const [more, other] = [new Map(rest.served), new Map(rest.served)]
    more.set('one more', hash('sha256', 'more'))
    other.set([...other.keys()][0] ?? '', hash('sha256', 'other'))
    for (const served of [more, other]) expect(faultsOf(served, states, rest.ms)).toHaveLength(1)

    // At each record, not at some: every index that was recorded against what was there from it to the next one.
    const { faults, indexes, removals } = await unordered(site)
    expect(faults).toEqual([])
    expect(indexes).toBeGreaterThan(3)
    expect(removals).toBeGreaterThan(3)
    // It shows that a file which is missing would be told.
    const copy = join(site.restore(new Date(rest.ms).toISOString()), STORAGE)
    rmSync(join(copy, readIndex(copy).files[0]?.path ?? ''))
    expect(storageFaults(copy)).toHaveLength(1)
  })
})
