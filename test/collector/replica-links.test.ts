/** Hard links in the replica: names of one file are names of one file there, whichever round brings which of them. */
import { existsSync, lstatSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { FileVersion } from '../../shared/version.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { RunningReplica, restoredHead } from '../support/running-replica.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { walkTree } from '../support/tree-walk.ts'

/** More records than a round takes. */
const MORE_THAN_A_ROUND = 2500
const DIRECTORIES = ['a', 'b', 'c', 'd']

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('link'), place: fc.constantFrom('a/f', 'a/g', 'b/f', 'b/g', 'c/f'), file: fc.nat(1) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('rename'), from: fc.constantFrom(...DIRECTORIES), to: fc.constantFrom(...DIRECTORIES) }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('send', 'stop', 'start') }) },
)

class Site {
  readonly store: Store
  readonly writer = new JournalWriter()
  readonly #directory = join(scratchDirectory(), 'replica')
  #running: RunningReplica | undefined

  private constructor(store: Store) {
    this.store = store
  }

  static async open(): Promise<Site> {
    return new Site(await Store.open())
  }

  /** Puts names of one file. */
  link(...paths: string[]): void {
    const version = this.writer.fileVersion(Buffer.from('linked'), { links: 2, inode: 4711n })
    for (const path of paths) this.writer.put(path, version)
  }

  /** Gives a file another name, which changes all that it has. */
  addName(inode: bigint, place: string): void {
    const { store, writer } = this
    const tree = store.newestTree(writer)
    const directory = place.slice(0, place.indexOf('/'))
    if (!tree.some(({ path }) => path === directory)) writer.put(directory, directoryVersion())
    const names = tree.filter(({ path, version }) => version.inode === inode && path !== place).map(({ path }) => path)
    const version = writer.fileVersion(Buffer.from(`${inode}`), { inode, links: names.length + 1 })
    for (const name of [...names, place]) writer.put(name, version)
  }

  fill(name: string): void {
    for (let i = 0; i < MORE_THAN_A_ROUND; i++) this.writer.put(`${name}${i}`, symlinkVersion(`${i}`))
  }

  async send(): Promise<void> {
    await this.store.send(this.writer)
    this.#running?.replica.hint([this.writer.agent])
  }

  /** What was put before is there when the replica starts: it believes none of its files then. */
  async start(): Promise<void> {
    await this.send()
    this.#running ??= new RunningReplica(this.store, this.#directory)
  }

  async reach(): Promise<void> {
    await this.start()
    await this.#running?.reach(this.writer)
  }

  async stop(): Promise<void> {
    await this.#running?.stop()
    this.#running = undefined
  }

  get root(): string {
    return join(this.#directory, this.writer.agent, VOLUME)
  }

  inodeOf(path: string): number {
    return lstatSync(join(this.root, path)).ino
  }
}

describe('hard links in the replica', () => {
  it('stay together when the first round after a start brings a third name', async () => {
    const site = await Site.open()
    site.link('a', 'b')
    await site.reach()
    await site.stop()
    site.link('c')
    await site.reach()
    expect(site.inodeOf('c')).toBe(site.inodeOf('a'))
    expect(site.inodeOf('b')).toBe(site.inodeOf('a'))
  })

  it('stay together when the first round after a start renames the directory of one of them', async () => {
    const site = await Site.open()
    site.writer.put('d', directoryVersion())
    site.link('d/a', 'b')
    await site.reach()
    await site.stop()
    site.writer.rename('d', 'e')
    await site.reach()
    expect(site.inodeOf('e/a')).toBe(site.inodeOf('b'))
  })

  it('come together when the first and the second round after a start bring one each', async () => {
    const site = await Site.open()
    await site.reach()
    await site.stop()
    site.link('a')
    site.fill('x')
    site.link('b')
    await site.reach()
    expect(site.inodeOf('b')).toBe(site.inodeOf('a'))
  })

  it('stay together when their directories are renamed in two rounds, the first path by path', async () => {
    const site = await Site.open()
    const { writer } = site
    for (const directory of ['a', 'b']) writer.put(directory, directoryVersion())
    site.link('a/f', 'b/f')
    await site.reach()
    // The first round is ahead at a/changing: the second one cannot rename its directory in the files.
    writer.file('a/changing', Buffer.from('first'))
    site.fill('x')
    writer.file('a/changing', Buffer.from('second'))
    writer.rename('a', 'c')
    site.fill('y')
    writer.rename('b', 'd')
    await site.reach()
    expect(site.inodeOf('d/f')).toBe(site.inodeOf('c/f'))
  })

  it('are as they were put last when one is put again while its round is under way', async () => {
    const site = await Site.open()
    const { store, writer } = site
    const linked = (mode: number): FileVersion => writer.fileVersion(Buffer.from('linked'), { links: 2, inode: 4711n, mode })
    writer.put('a', linked(0o644))
    writer.put('c', linked(0o600))
    const hardLinks = store.catalog.hardLinks.bind(store.catalog)
    let count = 0
    store.catalog.hardLinks = async (...about) => {
      if (++count === 2) {
        writer.put('a', linked(0o600))
        await site.send()
      }
      return hardLinks(...about)
    }
    await site.reach()
    expect(lstatSync(join(site.root, 'a')).mode & 0o777).toBe(0o600)
    expect(lstatSync(join(site.root, 'c')).mode & 0o777).toBe(0o600)
    expect(site.inodeOf('c')).toBe(site.inodeOf('a'))
  })

  it('are those of a restore after any renames of their directories, however rounds and starts fall between', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
        const site = await Site.open()
        const { writer, store } = site
        for (const directory of DIRECTORIES) writer.put(directory, directoryVersion())
        for (const one of steps) {
          if ('place' in one) site.addName(BigInt(one.file), one.place)
          else if ('from' in one) writer.rename(one.from, one.to)
          else if (one.op === 'stop') await site.stop()
          else if (one.op === 'start') await site.start()
          else await site.send()
        }
        await site.reach()
        expect(walkTree(site.root)).toEqual(await restoredHead(store, writer))
        expect(existsSync(join(site.root, '../../../replica-drift')), 'nobody else wrote').toBe(false)
        await site.stop()
        await store.stop()
      }),
      { numRuns: 100 },
    )
  }, 120_000)
})
