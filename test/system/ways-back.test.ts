/**
 * Every way back to a moment, at many of them: whole, in part, in place and taken back again, here, from another host, and from the bare repository.
 *
 * What comes back is held against the truth model, every path with its content and all its metadata; and each time one byte, and one
 * nanosecond, is changed in it to see that the comparison tells.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { libc } from '../../shared/libc.ts'
import { isWithin, nameOf, type RelativePath, ROOT, showPath } from '../../shared/path.ts'
import { answer } from '../support/launcher.ts'
import { enrolRestorer } from '../support/restorer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { archiveTree, walkTree } from '../support/tree-walk.ts'
import { type Copy, differences, type TruePoint, Truth } from '../support/truth.ts'
import { EVERY_OPERATION, Random, Workload } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const IS_SOAK = process.env['PACSIMILE_SOAK'] !== undefined
const POINTS = IS_SOAK ? 100 : 6
const NOTED = IS_SOAK ? 140 : 16
/** At once; each goes from late points to early ones. */
const LANES = IS_SOAK ? 8 : 2
const TIMEOUT_MS = IS_SOAK ? 3_600_000 : 240_000
const FIRST_STEPS = 80
const STEPS_MAX = 25
/** How soon something is captured is the matter of other tests. */
const WAIT_SECONDS = 300
const VOLUME = 'pacs1:images'

/** What is asked for at a point besides all of it. */
interface Asked {
  readonly point: TruePoint
  readonly directory: RelativePath
  readonly file: RelativePath
  /** From where the parts and the restore in place are read. */
  readonly from: readonly string[]
}

interface Report {
  readonly missing: readonly unknown[]
  readonly shortcomings: readonly unknown[]
  readonly inPlace: { readonly id: string | null } | null
}

describe(`the ways back to ${POINTS} random moments (PACSIMILE_SEED=${SEED})`, () => {
  it('all bring back what was there then, byte for byte, and the undo what was there since', { timeout: TIMEOUT_MS }, async () => {
    process.env['PACSIMILE_RESTORES'] = join(scratchDirectory(), 'restores')
    const random = new Random(SEED)
    const source = join(scratchDirectory(), 'images')
    const site = await Site.make({ source })
    const workload = new Workload(source, SEED, EVERY_OPERATION)
    for (let step = 0; step < FIRST_STEPS; step++) workload.step()
    site.start()
    const truth = await grown(site, workload, random)
    await site.stop()

    const { data, port } = site.installation
    const places = [
      ['--data', data],
      ['--collector', `https://127.0.0.1:${port}`, '--identity', enrolRestorer(site.installation, 'host', 'pacs1')],
      ['--repository', join(data, 'repository'), '--key-file', join(data, 'keys/repository.key')],
    ]
    const asked = chosen(truth, random).map((point, i): Asked => {
      const pick = (kind: string): RelativePath =>
        (random.pick([...point.copy].flatMap(([path, entry]) => (path !== ROOT && entry.kind === kind ? [path] : []))) ??
          ROOT) as RelativePath
      return { point, directory: pick('directory'), file: pick('file'), from: places[i % places.length] ?? [] }
    })
    const latest = truth.points.at(-1)
    if (latest === undefined) throw new Error('no point was noted')
    const taken = await Promise.all(
      Array.from({ length: LANES }, (_, lane) => {
        const later = { directory: join(scratchDirectory(), 'live'), copy: latest.copy }
        execFileSync('cp', ['-a', source, later.directory])
        return wayBack(
          asked.filter((_each, i) => i % LANES === lane),
          places,
          later,
        )
      }),
    )
    expect(
      taken.reduce((sum, count) => sum + count, 0),
      'restores in place that had something to do',
    ).toBeGreaterThan(POINTS / 2)
  })
})

async function grown(site: Site, workload: Workload, random: Random): Promise<Truth> {
  await site.wait(WAIT_SECONDS)
  const truth = new Truth(site.source)
  for (let i = 0; i < NOTED; i++) {
    for (let steps = 1 + random.below(STEPS_MAX); steps > 0; steps--) workload.step()
    await site.wait(WAIT_SECONDS)
    truth.note()
    // A point includes all of its millisecond: the next change must not fall into it.
    await setTimeout(2)
  }
  return truth
}

/** Not the last one: something has happened since. Late ones first. */
function chosen(truth: Truth, random: Random): TruePoint[] {
  const points = truth.points.slice(0, -1)
  while (points.length > POINTS) points.splice(random.below(points.length), 1)
  return points.toReversed()
}

/** Every way, at point after point. @returns how many restores in place had something to do */
async function wayBack(
  asked: readonly Asked[],
  places: readonly (readonly string[])[],
  latest: { readonly directory: string; readonly copy: Copy },
): Promise<number> {
  const scratch = scratchDirectory()
  let later = latest
  let taken = 0
  for (const { point, directory, file, from } of asked) {
    const at = new Date(point.ms).toISOString()
    const restored = async (name: string, path: RelativePath, place: readonly string[]): Promise<string> => {
      const to = join(scratch, name)
      rmSync(to, { recursive: true, force: true })
      await restoreTo(to, at, path, place)
      return to
    }
    for (const [i, place] of places.entries()) {
      const to = await restored(`whole-${i}`, ROOT, place)
      expectSame(point.copy, to, file, `all of ${at} ${place.join(' ')}`)
    }
    expectSame(below(point.copy, directory), await restored('part', directory, from), undefined, `${showPath(directory)} of ${at}`)
    if (file !== ROOT) {
      const found = walkTree(await restored('file', file, from))
      found.delete('')
      expect(differences(alone(point.copy, file), found), `${showPath(file)} of ${at}`).toEqual([])
    }

    const { inPlace } = await restoreTo(later.directory, at, ROOT, [...from, '--in-place', '--delete', '--yes'])
    expect(differences(point.copy, archiveTree(later.directory)), `in place at ${at}`).toEqual([])
    if (typeof inPlace?.id === 'string') {
      taken += 1
      expect(await answer('restore', 'undo', inPlace.id)).toMatchObject({ done: true, troubles: [], shortcomings: [] })
      expectSame(later.copy, later.directory, undefined, `taken back from ${at}`)
    }
    rmSync(later.directory, { recursive: true })
    later = { directory: join(scratch, `later-${point.ms}`), copy: point.copy }
    renameSync(join(scratch, 'whole-0'), later.directory)
  }
  return taken
}

async function restoreTo(to: string, at: string, path: RelativePath, more: readonly string[]): Promise<Report> {
  const target = path === ROOT ? VOLUME : `${VOLUME}/${showPath(path)}`
  const report = (await answer('restore', target, '--at', at, '--to', to, '--special', ...more)) as Report
  expect(report, `${target} at ${at}`).toMatchObject({ missing: [], shortcomings: [] })
  return report
}

/** And it would be told if one byte of `file`, or one nanosecond, were another. */
function expectSame(expected: Copy, directory: string, file: RelativePath | undefined, what: string): void {
  expect(differences(expected, walkTree(directory)), what).toEqual([])
  const entry = file === undefined ? undefined : expected.get(file)
  if (file === undefined || entry === undefined || entry.size === 0) return
  const at = Buffer.concat([Buffer.from(`${directory}/`), Buffer.from(file, 'latin1')])
  const named = [...expected.values()].filter(({ sameAs }) => sameAs === entry.sameAs).length
  const bytes = readFileSync(at)
  const other = Buffer.from(bytes)
  other[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
  const expectTold = (field: string): void => {
    const told = differences(expected, walkTree(directory))
    expect(told.filter((words) => words.includes(` ${field}: `))).toHaveLength(named)
    expect(told).toHaveLength(named)
  }
  const write = (content: Buffer, mtimeNs: bigint): void => {
    writeFileSync(at, content)
    libc?.setModified(at.toString('latin1'), mtimeNs)
  }
  write(other, entry.mtimeNs)
  expectTold('content')
  write(bytes, entry.mtimeNs + 1n)
  expectTold('mtimeNs')
  write(bytes, entry.mtimeNs)
  expect(differences(expected, walkTree(directory)), what).toEqual([])
}

/** A directory and what is in it, as if it were all there is. */
function below(copy: Copy, directory: RelativePath): Copy {
  const part = [...copy].filter(([path]) => isWithin(path as RelativePath, directory))
  const firstOf = new Map<string, string>()
  const placed = part.map(([path, entry]) => {
    const name = directory === ROOT ? path : path.slice(directory.length + 1)
    if (!firstOf.has(entry.sameAs)) firstOf.set(entry.sameAs, name)
    return [name, { ...entry, sameAs: firstOf.get(entry.sameAs) ?? name }] as const
  })
  return new Map(placed)
}

/** A file, as its target holds it. */
function alone(copy: Copy, file: RelativePath): Copy {
  const entry = copy.get(file)
  const name = nameOf(file)
  return new Map(entry === undefined ? [] : [[name, { ...entry, sameAs: name }]])
}
