import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { CaptureRequest } from '../../agent/capture.ts'
import { digestOf } from '../../shared/digest.ts'
import { CAPTURE_BYTES_IN_FLIGHT } from '../../shared/limits.ts'
import { relativePath } from '../../shared/path.ts'
import { CaptureSite, contentOf, fileOf, side, versionOf } from '../support/capture-site.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const LOOKS = 3000
/** Directories are not held open longer than this between two looks. */
const LONG_MS = 300

/** Replaces the directory `d` by a symlink to another one and back, as fast as it can, until it is ended. */
const SWAP = `
import os, sys
os.chdir(sys.argv[1])
os.symlink(sys.argv[2], 'link')
print('begun', flush=True)
while True:
    os.rename('d', 'real'); os.rename('link', 'd')
    os.rename('d', 'link'); os.rename('real', 'd')
`

/** Makes directories below one another, as deep as the path given says, and a file at the end, step by step. */
const DEEP = `
import os, sys
os.chdir(sys.argv[1])
*names, last = sys.argv[2].split('/')
for name in names:
    os.mkdir(name); os.chdir(name)
open(last, 'w').write('deep')
`

describe('paths beneath a volume', () => {
  it('never lead out of it, whatever becomes of their directories meanwhile', async () => {
    const site = new CaptureSite()
    const outside = scratchDirectory()
    mkdirSync(site.file('d'))
    writeFileSync(site.file('d/f'), 'inside')
    writeFileSync(join(outside, 'f'), 'outside')
    const swapper = spawn('python3', ['-c', SWAP, site.directory, outside], { stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = once(swapper, 'exit')
    onTestFinished(async () => {
      swapper.kill()
      await ended
    })
    await once(swapper.stdout, 'data')
    const seen = new Map<string, number>()
    for (let looks = 0; looks < LOOKS; looks += 30) {
      const captured = await Promise.all(Array.from({ length: 30 }, () => site.look('d/f')))
      for (const each of captured) {
        const what = each.outcome.kind === 'version' ? contentOf(each).toString() : each.outcome.kind
        seen.set(what, (seen.get(what) ?? 0) + 1)
      }
    }
    expect(seen.get('outside')).toBeUndefined()
    // The swapping was really seen.
    expect(seen.get('inside')).toBeGreaterThan(0)
    expect((seen.get('gone') ?? 0) + (seen.get('busy') ?? 0)).toBeGreaterThan(0)
  })

  it('may be 4095 bytes long below any root', async () => {
    const site = new CaptureSite()
    const path = `${'d'.repeat(200)}/`.repeat(20) + 'f'.repeat(4095 - 201 * 20)
    const made = spawn('python3', ['-c', DEEP, site.directory, path], { stdio: 'inherit' })
    expect(await once(made, 'exit')).toEqual([0, null])
    const captured = await site.look(path)
    expect(contentOf(captured).toString()).toBe('deep')
    expect(fileOf(captured).digest).toBe(digestOf(Buffer.from('deep')))
    expect((await site.look(`${path.slice(0, -1)}x`)).outcome.kind).toBe('gone')
    const [chunk] = fileOf(captured).chunks
    if (chunk === undefined) throw new Error('no chunk')
    expect((await site.request({ kind: 'fetch', path: relativePath(path), offset: 0, chunk })).outcome).toEqual({
      kind: 'fetched',
      found: true,
    })
  })

  it('name the topmost directory that is missing or is none', async () => {
    const site = new CaptureSite()
    mkdirSync(site.file('a/b/c'), { recursive: true })
    writeFileSync(site.file('a/file'), '')
    symlinkSync('b', site.file('a/link'))
    expect((await site.look('a/x/y/z')).outcome).toEqual({ kind: 'gone', topmost: 'a/x' })
    expect((await site.look('a/file/y/z')).outcome).toEqual({ kind: 'gone', topmost: 'a/file/y' })
    expect((await site.look('a/link/c')).outcome).toEqual({ kind: 'gone', topmost: 'a/link/c' })
    expect((await site.look('a/link/c/d')).outcome).toEqual({ kind: 'gone', topmost: 'a/link/c' })
    expect(versionOf(await site.look('a/link'))).toMatchObject({ kind: 'symlink', target: 'b' })
  })

  it('are not gone but lost when the root is replaced between two looks', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'content')
    expect((await site.look('f')).outcome.kind).toBe('version')
    renameSync(site.directory, `${site.directory}-moved`)
    onTestFinished(() => rmSync(`${site.directory}-moved`, { recursive: true }))
    symlinkSync('/', site.directory)
    expect((await site.look('f')).outcome.kind).toBe('root-lost')
  })

  it('are looked for again after a look that took long', async () => {
    const site = new CaptureSite()
    mkdirSync(site.file('d'))
    writeFileSync(site.file('d/large'), new Random(1).bytes(2 * CAPTURE_BYTES_IN_FLIGHT))
    writeFileSync(site.file('d/f'), 'old')
    let replaced: Promise<void> | undefined
    const replace = async (): Promise<void> => {
      renameSync(site.file('d'), site.file('e'))
      mkdirSync(site.file('d'))
      writeFileSync(site.file('d/f'), 'new')
      await setTimeout(LONG_MS)
    }
    const names = ['d/large', 'd/f', ...Array<string>(6).fill('absent')]
    const requests = names.map(
      (name): CaptureRequest => ({ kind: 'examine', ...side(name), asIs: false, isDeep: false, wasStable: true, pin: undefined }),
    )
    const [large, file] = await site.requestAll(requests, () => {
      replaced ??= replace()
      return replaced
    })
    expect(large?.outcome).toEqual({ kind: 'busy' })
    if (file === undefined) throw new Error('no answer')
    expect(contentOf(file).toString()).toBe('new')
  })
})
