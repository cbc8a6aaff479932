/** A restore that is killed at random moments and run again: right in the end, and at no moment a half-written file under its name. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { LAUNCHER } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const KILLS = process.env['PACSIMILE_SOAK'] === undefined ? 6 : 50
const STUDIES = 30
const IMAGES = 40
const VOLUME = 'pacs1:images'
const EXIT_BUSY_MS = 60_000

describe(`a restore that is killed ${KILLS} times (PACSIMILE_SEED=${SEED})`, () => {
  it('goes on where it was and is right in the end, from the replica and from the bare repository', { timeout: 600_000 }, async () => {
    const random = new Random(SEED)
    const source = join(scratchDirectory(), 'images')
    for (let study = 0; study < STUDIES; study++) {
      mkdirSync(join(source, `study-${study}`), { recursive: true })
      for (let i = 0; i < IMAGES; i++) writeFileSync(join(source, `study-${study}/${i}.dcm`), random.bytes(20_000 + random.below(60_000)))
    }
    const site = await Site.watching({ source })
    const { installation } = site
    const truth = walkTree(source)
    const head = site.log().at(-1)
    await site.stop()
    const at = `seq:${head?.epoch}:${head?.seq}`
    const offline = ['--repository', join(installation.data, 'repository'), '--key-file', join(installation.data, 'keys/repository.key')]

    let killed = 0
    let kept = 0
    for (const place of [['--data', installation.data], offline]) {
      for (let wholeMs: number | undefined; killed < KILLS * (place === offline ? 1 : 0.5); ) {
        const to = join(scratchDirectory(), 'restored')
        for (let isDone = false; !isDone; ) {
          const started = performance.now()
          const child = spawn(LAUNCHER, ['restore', VOLUME, '--at', at, '--to', to, '--json', ...place], {
            stdio: ['ignore', 'pipe', 'inherit'],
          })
          let said = ''
          child.stdout.on('data', (bytes: Buffer) => {
            said += bytes.toString()
          })
          const ended = once(child, 'close')
          // The first run shows how long one takes; later ones are killed somewhere in it.
          const limitMs = wholeMs === undefined ? EXIT_BUSY_MS : random.below(Math.ceil(wholeMs))
          await Promise.race([ended, setTimeout(limitMs, undefined, { ref: false })])
          child.kill('SIGKILL')
          const [status] = (await ended) as [number | null]
          isDone = status === 0
          if (isDone) {
            wholeMs ??= performance.now() - started
            const report = JSON.parse(said) as { kept: number; missing: unknown[] }
            kept += report.kept
            expect(report.missing).toEqual([])
            expect(differences(truth, walkTree(to))).toEqual([])
            expect(readdirSync(to).filter((name) => name.startsWith('.pacsimile'))).toEqual([])
          } else {
            expect(status, 'killed, not failed').toBeNull()
            killed += 1
            expectWholeFiles(truth, to)
          }
        }
      }
    }
    expect(kept, 'files that were kept from a run before').toBeGreaterThan(0)
  })
})

/** What has its name has its content; names that only the restore knows are not looked at. */
function expectWholeFiles(truth: ReturnType<typeof walkTree>, to: string): void {
  let found: ReturnType<typeof walkTree>
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
