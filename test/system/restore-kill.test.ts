/** A restore that is killed at random moments and run again: right in the end, and at no moment a half-written file under its name. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { RESTORE_NOTE } from '../../collector/restore-target.ts'
import { answer, LAUNCHER } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { archiveTree, walkTree } from '../support/tree-walk.ts'
import { type Copy, differences } from '../support/truth.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const IS_SOAK = process.env['PACSIMILE_SOAK'] !== undefined
const KILLS = IS_SOAK ? 50 : 8
const TIMEOUT_MS = IS_SOAK ? 3_600_000 : 600_000
const STUDIES = 30
const IMAGES = 40
/** How soon something is captured is the matter of other tests. */
const WAIT_SECONDS = 300
const VOLUME = 'pacs1:images'
const EXIT_BUSY_MS = 60_000
const EXIT_NOT_EMPTY = 9
const NS_PER_MS = 1_000_000n

describe(`a restore that is killed ${KILLS} times (PACSIMILE_SEED=${SEED})`, () => {
  it('goes on where it was and is right in the end, from the replica and from the bare repository', { timeout: TIMEOUT_MS }, async () => {
    process.env['PACSIMILE_RESTORES'] = join(scratchDirectory(), 'restores')
    const random = new Random(SEED)
    const source = join(scratchDirectory(), 'images')
    for (let study = 0; study < STUDIES; study++) {
      mkdirSync(join(source, `study-${study}`), { recursive: true })
      for (let i = 0; i < IMAGES; i++) writeFileSync(join(source, `study-${study}/${i}.dcm`), random.bytes(20_000 + random.below(60_000)))
    }
    const site = await Site.make({ source })
    site.start()
    await site.wait(WAIT_SECONDS)
    const { installation } = site
    const truth = walkTree(source)
    const head = site.log().at(-1)
    await site.stop()
    const at = `seq:${head?.epoch}:${head?.seq}`
    const offline = ['--repository', join(installation.data, 'repository'), '--key-file', join(installation.data, 'keys/repository.key')]

    let killed = 0
    let kept = 0
    for (const place of [['--data', installation.data], offline]) {
      let wholeMs = EXIT_BUSY_MS
      let killedAtEnd = 0
      for (let round = 0; killed < KILLS * (place === offline ? 1 : 0.5) || killedAtEnd === 0; round++) {
        const to = join(scratchDirectory(), 'restored')
        const args = ['restore', VOLUME, '--at', at, '--to', to, ...place]
        let killedAtMs: number | undefined
        for (let isDone = false; !isDone; ) {
          const startedMs = Date.now()
          // The first shows how long one takes, the second is killed once, when it has written something; then they are killed when nothing says
          // any more that they are not whole, until one has not ended before that; and then anywhere.
          const isLeftAlone = round === 0 || (round === 1 && killedAtMs !== undefined)
          const limitMs = isLeftAlone ? EXIT_BUSY_MS : random.below(Math.ceil(wholeMs))
          const moment = async (isEnded: AbortSignal): Promise<void> => {
            if (round === 1 && !isLeftAlone) await seen(join(to, 'study-0/0.dcm'), true, isEnded)
            else if (round > 1 && killedAtEnd === 0) await noteLeaving(to, isEnded)
            else await setTimeout(limitMs, undefined, { ref: false })
          }
          const { status, said, complaint } = await ended([...args, '--json'], moment)
          isDone = status !== null
          if (status === 0) {
            if (round === 0) wholeMs = Date.now() - startedMs
            const report = JSON.parse(said) as { kept: number; missing: unknown[] }
            kept += report.kept
            expect(report.missing).toEqual([])
            expect(differences(truth, walkTree(to))).toEqual([])
            expectNoNote(to)
          } else if (status === null) {
            killed += 1
            killedAtMs = startedMs
            expectWholeFiles(truth, to)
          } else {
            // It had done all but end with 0.
            expect({ status, wasKilled: killedAtMs !== undefined }, complaint).toEqual({ status: EXIT_NOT_EMPTY, wasKilled: true })
            expect(complaint).toContain(`${to} is not empty; --in-place makes`)
            killedAtEnd += 1
            await expectWhole(truth, to, killedAtMs ?? startedMs, args)
          }
        }
      }
    }
    expect(kept, 'files that were kept from a run before').toBeGreaterThan(0)
  })
})

/** Killed at the moment, if it has not ended by then. */
async function ended(
  args: readonly string[],
  moment: (ended: AbortSignal) => Promise<unknown>,
): Promise<{ status: number | null; said: string; complaint: string }> {
  const child = spawn(LAUNCHER, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let [said, complaint] = ['', '']
  child.stdout.on('data', (bytes: Buffer) => {
    said += bytes.toString()
  })
  child.stderr.on('data', (bytes: Buffer) => {
    complaint += bytes.toString()
  })
  const isEnded = new AbortController()
  const closed = once(child, 'close').finally(() => isEnded.abort())
  await Promise.race([closed, moment(isEnded.signal)])
  child.kill('SIGKILL')
  const [status] = (await closed) as [number | null]
  return { status, said, complaint }
}

/** Resolves when the note of a restore has come and gone, or when that has ended. */
async function noteLeaving(to: string, isEnded: AbortSignal): Promise<void> {
  for (const isThere of [true, false]) await seen(join(to, RESTORE_NOTE), isThere, isEnded)
}

async function seen(path: string, isThere: boolean, isEnded: AbortSignal): Promise<void> {
  while (existsSync(path) !== isThere && !isEnded.aborted) await setTimeout(1, undefined, { ref: false })
}

function expectNoNote(to: string): void {
  expect(readdirSync(to).filter((name) => name.startsWith('.pacsimile'))).toEqual([])
}

/** What was killed behind its last step lacks nothing, but perhaps its own time; and what is advised then finds it so. */
async function expectWhole(truth: Copy, to: string, startedMs: number, args: readonly string[]): Promise<void> {
  expectNoNote(to)
  const found = walkTree(to)
  const [have, want] = [found.get(''), truth.get('')]
  if (have !== undefined && want !== undefined && have.mtimeNs !== want.mtimeNs) {
    expect(have.mtimeNs, 'when the note left').toBeGreaterThanOrEqual(BigInt(startedMs) * NS_PER_MS)
    found.set('', { ...have, mtimeNs: want.mtimeNs })
  }
  expect(differences(truth, found)).toEqual([])
  const report = await answer(...args, '--in-place', '--delete', '--yes')
  expect(report).toMatchObject({ missing: [], inPlace: { added: [], replaced: [], removed: [], bytesToWrite: 0 } })
  expect(differences(truth, archiveTree(to))).toEqual([])
}

/** What has its name has its content; names that only the restore knows are not looked at. */
function expectWholeFiles(truth: Copy, to: string): void {
  let found: Copy
  try {
    found = walkTree(to)
  } catch {
    // It was killed before it had made the directory.
    return
  }
  for (const [path, { kind, content, size }] of found) {
    if (kind !== 'file' || path.includes('.pacsimile-tmp-')) continue
    expect({ content, size }, path).toEqual({ content: truth.get(path)?.content, size: truth.get(path)?.size })
  }
}
