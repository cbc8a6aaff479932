import { linkSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { ChokidarWatcher } from '../../agent/watch/chokidar.ts'
import { ignoredPaths } from '../../agent/watch/ignore.ts'
import type { WatchEvent } from '../../agent/watch/watcher.ts'
import type { RelativePath } from '../../shared/path.ts'
import { path } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

class Watched {
  readonly directory = scratchDirectory()
  readonly #seen: WatchEvent[] = []
  #wake: (() => void) | undefined

  async open(ignored: readonly RelativePath[] = []): Promise<this> {
    const watcher = await ChokidarWatcher.open(
      { volume: 'images', directory: this.directory, ignored },
      'a test',
      new AbortController().signal,
    )
    onTestFinished(() => watcher.close())
    void this.#follow(watcher)
    return this
  }

  async #follow(watcher: ChokidarWatcher): Promise<void> {
    for await (const events of watcher.events()) {
      this.#seen.push(...events)
      this.#wake?.()
    }
  }

  file(name: string): string {
    return join(this.directory, name)
  }

  /** Resolves when such an event has come. */
  async sees(expected: Partial<WatchEvent>): Promise<void> {
    while (
      !this.#seen.some((event) => Object.entries(expected).every(([key, value]) => (event as Record<string, unknown>)[key] === value))
    ) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  get paths(): ReadonlySet<string> {
    return new Set(this.#seen.flatMap((event) => ('path' in event ? [event.path] : [])))
  }
}

describe('watching through chokidar', () => {
  it('tells of files that are made, changed, renamed and deleted, and makes no event of what was there before', async () => {
    const watched = new Watched()
    mkdirSync(watched.file('d'))
    for (const name of ['old', 'd/changed', 'd/renamed', 'd/deleted']) writeFileSync(watched.file(name), '')
    await watched.open()
    writeFileSync(watched.file('d/made'), 'x')
    writeFileSync(watched.file('d/changed'), 'x')
    renameSync(watched.file('d/renamed'), watched.file('to'))
    rmSync(watched.file('d/deleted'))
    symlinkSync('nowhere', watched.file('link'))
    linkSync(watched.file('d/made'), watched.file('d/hard'))
    for (const name of ['d/made', 'd/changed', 'd/renamed', 'to', 'd/deleted', 'link', 'd/hard'])
      await watched.sees({ kind: 'dirty', path: path(name) })
    expect(watched.paths.has('old')).toBe(false)
  })

  it('has a new directory scanned, twice', async () => {
    const watched = await new Watched().open()
    mkdirSync(watched.file('new/deep'), { recursive: true })
    await watched.sees({ kind: 'dirty', path: path('new') })
    await watched.sees({ kind: 'rescan', path: path('new'), isShallow: false })
    writeFileSync(watched.file('new/deep/f'), '')
    await watched.sees({ kind: 'dirty', path: path('new/deep/f') })
  })

  it('has the directory of a name that is no text looked through', async () => {
    const watched = new Watched()
    mkdirSync(watched.file('d'))
    await watched.open()
    writeFileSync(Buffer.concat([Buffer.from(watched.file('d/')), Buffer.from([0xff])]), '')
    await watched.sees({ kind: 'rescan', path: path('d'), isShallow: true })
  })

  it('does not tell of what is ignored', async () => {
    const watched = new Watched()
    mkdirSync(watched.file('state'))
    await watched.open([path('state')])
    writeFileSync(watched.file('state/f'), '')
    writeFileSync(watched.file('g'), '')
    await watched.sees({ kind: 'dirty', path: path('g') })
    expect(watched.paths.has('state/f')).toBe(false)
  })

  it('ends its events when it is closed', async () => {
    const watcher = await ChokidarWatcher.open(
      { volume: 'images', directory: scratchDirectory(), ignored: [] },
      'a test',
      new AbortController().signal,
    )
    const following = Array.fromAsync(watcher.events())
    await watcher.close()
    expect(await following).toEqual([])
  })
})

describe('what is ignored', () => {
  it("is the agent's state, wherever the volume's name leads to it", () => {
    const volume = scratchDirectory()
    const elsewhere = join(scratchDirectory(), 'link')
    mkdirSync(join(volume, 'var/agent'), { recursive: true })
    symlinkSync(volume, elsewhere)
    expect(ignoredPaths(volume, join(volume, 'var/agent'))).toEqual(['var/agent'])
    expect(ignoredPaths(elsewhere, join(volume, 'var/agent'))).toEqual(['var/agent'])
    expect(ignoredPaths(join(volume, 'var'), volume)).toEqual([])
  })
})
