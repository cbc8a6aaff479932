/**
 * Creates small files, at a fixed rate or as fast as it goes.
 *
 *     node paced-writer.ts '{"root": "...", "files": 50000, "perSecond": 10000}'
 *
 * The last line of its output says how many it created and how long that took: a machine that cannot keep the rate is not
 * taken for one that did.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const FILES_PER_DIRECTORY = 500
const { root, files, perSecond } = JSON.parse(process.argv[2] ?? '{}') as { root: string; files: number; perSecond?: number }
const content = Buffer.alloc(1000, 'small file ')

const started = performance.now()
for (let i = 0; i < files; i++) {
  const directory = join(root, `d${Math.floor(i / FILES_PER_DIRECTORY)}`)
  if (i % FILES_PER_DIRECTORY === 0) mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, `f${i}`), content)
  const early = perSecond === undefined ? 0 : (i / perSecond) * 1000 - (performance.now() - started)
  if (early > 2) await setTimeout(early)
}
process.stdout.write(`${JSON.stringify({ files, seconds: (performance.now() - started) / 1000 })}\n`)
