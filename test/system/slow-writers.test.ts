import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { digestHex, digestOf } from '../../shared/digest.ts'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { launch } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { sideBySide } from '../support/side-by-side.ts'
import { type LogLine, Site } from '../support/site.ts'
import type { FileState, SlowStyle } from '../support/slow-writer.ts'
import { runScript, storm } from '../support/storm.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const SOAK = process.env['PACSIMILE_SOAK'] === '1'
const SECONDS = SOAK ? 60 : 6
const MOMENTS = SOAK ? 100 : 20
/** A minute of gusts is a storm that takes longer to come to rest than the minute. */
const PATIENCE_SECONDS = SOAK ? 600 : 50
/** Of each file on average. One that is written all the time is captured once a second, or seldom where each capture takes long. */
const VERSIONS_MIN = 2
/** A machine that is too slow for a version a second is written on for so long at most. */
const ENOUGH_SECONDS_MAX = 45
const GUST_OPERATIONS = 2000
const STYLES: readonly SlowStyle[] = ['in-place', 'in-place', 'random', 'random', 'append', 'reopen']
const WRITER = join(import.meta.dirname, '../support/slow-writer.ts')
const LIMIT = { timeout: (120 + SECONDS * 10 + ENOUGH_SECONDS_MAX + PATIENCE_SECONDS) * 1000 }

/** What each file really held, by path below the volume. */
type States = ReadonlyMap<string, readonly FileState[]>

/** Whether the file ever held that content, at that moment or before. */
function wasThere(states: States, path: string, digest: string, ms: number): boolean {
  return (states.get(path) ?? []).some((state) => state.digest === digest && state.fromMs <= ms + 1)
}

/** As the history has them. */
function versionsOf(site: Site): LogLine[] {
  return site.log({ path: 'slow' }).filter(({ op, version }) => op === 'put' && version?.kind === 'file')
}

async function writeSlowly(site: Site): Promise<States> {
  const enough = join(scratchDirectory(), 'enough')
  const files = STYLES.map((style, i) => ({ style, path: `slow/${style}-${i}` }))
  const ended = new AbortController()
  const over = new AbortController()
  onTestFinished(() => over.abort())
  const write = async (): Promise<States> => {
    const writers = files.map(async ({ style, path }, i) => {
      const states = await runScript(
        WRITER,
        { file: join(site.source, path), style, seconds: SECONDS, seed: SEED + i, enough },
        over.signal,
      )
      return [path, states as FileState[]] as const
    })
    const states = new Map(await Promise.all(writers))
    ended.abort()
    return states
  }
  const blow = async (): Promise<void> => {
    // Gusts, so that how much there is to capture does not depend on the speed of the machine.
    for (let gust = 0; !ended.signal.aborted && gust < SECONDS; gust++) {
      await storm(join(site.source, `storm-${gust}`), { operations: GUST_OPERATIONS, seed: SEED + gust })
      await setTimeout(1000 - GUST_OPERATIONS / 10, undefined, { signal: ended.signal }).catch(() => {})
    }
  }
  const watch = async (): Promise<void> => {
    await setTimeout(SECONDS * 1000)
    for (let second = 0; second < ENOUGH_SECONDS_MAX && versionsOf(site).length <= VERSIONS_MIN * files.length; second++)
      await setTimeout(1000)
    writeFileSync(enough, '')
  }
  const [states] = await Promise.all([write(), blow(), watch()])
  return states
}

describe.skipIf(!canMount)(`slow writers amid a storm (PACSIMILE_SEED=${SEED})`, () => {
  it.each(['ext4', 'xfs'] as const)('S18 leave only versions that their files had, or that are called torn, on %s', LIMIT, async (kind) => {
    const { at } = makeFilesystem(kind, 4 * 1024 ** 3)
    mkdirSync(join(at, 'slow'))
    const site = await Site.watching({ source: at })
    const startedMs = Date.now()
    const states = await writeSlowly(site)
    const endedMs = Date.now()
    await site.wait(PATIENCE_SECONDS)

    const versions = versionsOf(site)
    const strange = versions.filter(
      ({ path, time, version }) =>
        version?.consistency !== 'torn' && !wasThere(states, path ?? '', version?.digest ?? '', Date.parse(time)),
    )
    expect(strange.map(({ path, time, version }) => `${path} ${time} ${version?.consistency}`)).toEqual([])
    // Otherwise there was nothing to get wrong: they were captured while they were being written.
    const told = [...states].map(([path, held]) => {
      const kept = versions.filter((line) => line.path === path).map(({ time, version }) => `${time} ${version?.consistency}`)
      return `${path}: ${kept.length} versions of ${held.length} states: ${kept.join(', ')}`
    })
    expect(versions.length, told.join('\n')).toBeGreaterThan(VERSIONS_MIN * states.size)

    const random = new Random(SEED)
    const moments = Array.from({ length: MOMENTS }, () => startedMs + random.below(endedMs - startedMs))
    await sideBySide(moments, (ms) => expectMoment(site, versions, ms, states))
    await site.expectEqual()
  })

  it('would be told apart from a version that mixes two states', () => {
    const states: States = new Map([['slow/a', [{ digest: digestHex(digestOf(Buffer.from('aa'))), fromMs: 1, untilMs: 2 }]]])
    const digestAt = (content: string, ms: number): boolean => wasThere(states, 'slow/a', digestHex(digestOf(Buffer.from(content))), ms)
    expect([digestAt('aa', 1), digestAt('ab', 1), digestAt('aa', -1)]).toEqual([true, false, false])
  })
})

/** What is restored of a moment is what the log says of it, and a state that the file had by then. */
async function expectMoment({ installation: { data } }: Site, versions: readonly LogLine[], ms: number, states: States): Promise<void> {
  const moment = new Date(ms).toISOString()
  const to = join(scratchDirectory(), 'restored')
  const { status, stderr } = await launch('restore', 'pacs1:images/slow', '--at', moment, '--to', to, '--data', data)
  const latest = new Map<string, LogLine>()
  for (const line of versions) if (Date.parse(line.time) <= ms) latest.set(line.path ?? '', line)
  const torn = [...latest.values()].filter(({ version }) => version?.consistency === 'torn')
  // 8 is `incomplete`: torn versions are not restored without being asked for.
  if (status !== 0 && !(status === 8 && torn.length > 0)) throw new Error(`restore of ${moment} exited with ${status}: ${stderr}`)
  const restored = readdirSync(to).map((name) => `slow/${name}`)
  expect(restored.filter((path) => !latest.has(path))).toEqual([])
  for (const [path, line] of latest) {
    if (torn.includes(line)) continue
    const digest = digestHex(digestOf(readFileSync(join(to, path.slice('slow/'.length)))))
    expect(digest, `${path} at ${moment}`).toBe(line.version?.digest)
    expect(wasThere(states, path, digest, ms), `${path} at ${moment}`).toBe(true)
  }
}
