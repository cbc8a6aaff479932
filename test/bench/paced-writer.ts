/**
 * Creates small files at a fixed rate, for a fixed time.
 *
 *     node paced-writer.ts '{"root": "...", "perSecond": 10000, "seconds": 5}'
 *
 * The last line of its output says how many it created and how long that took: a machine that cannot keep the rate is not
 * taken for one that did.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const FILES_PER_DIRECTORY = 500
const { root, perSecond, seconds } = JSON.parse(process.argv[2] ?? '{}') as { root: string; perSecond: number; seconds: number }
const content = Buffer.alloc(1000, 'small file ')

const started = performance.now()
const total = perSecond * seconds
for (let i = 0; i < total; i++) {
  const directory = join(root, `d${Math.floor(i / FILES_PER_DIRECTORY)}`)
  if (i % FILES_PER_DIRECTORY === 0) mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, `f${i}`), content)
  const early = (i / perSecond) * 1000 - (performance.now() - started)
  if (early > 2) await setTimeout(early)
}
process.stdout.write(`${JSON.stringify({ files: total, seconds: (performance.now() - started) / 1000 })}\n`)
