import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Fanotify } from '../../agent/watch/fanotify.ts'
import type { WatchEvent, Watcher } from '../../agent/watch/watcher.ts'
import { libc } from '../../shared/libc.ts'
import { silentLog } from '../../shared/log.ts'
import { path } from '../support/agent-parts.ts'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { KeptDescriptors } from '../support/kept-descriptors.ts'
import { scratchDirectory } from '../support/scratch.ts'

const CHURN_FILESYSTEM_BYTES = 64 << 20
const CHURN_SECONDS = 3
/** Directories, each gone before anybody can ask for it: its inode is the next one's. */
const CHURN = `
import os, shutil, sys, time
place, until = sys.argv[1], time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    for name in ('d', 'e', 'f'):
        os.makedirs(f'{place}/{name}/deep')
        os.symlink(name, f'{place}/{name}/deep/link')
    os.rename(f'{place}/d', f'{place}/g')
    shutil.rmtree(place)
`

/** linux/fcntl.h */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY

class Watched {
  readonly directory: string
  readonly events: WatchEvent[] = []
  readonly fanotify: Fanotify
  readonly watcher: Watcher

  private constructor(directory: string, fanotify: Fanotify, watcher: Watcher) {
    this.directory = directory
    this.fanotify = fanotify
    this.watcher = watcher
  }

  /** What this process does counts as another's, unless `ownPid` is its own. */
  static async open(directory = scratchDirectory(), descriptors = new KeptDescriptors(), ownPid = -1): Promise<Watched> {
    const fanotify = Fanotify.open({ stateDir: scratchDirectory(), descriptors, log: silentLog, isQueueLimited: false, ownPid })
    onTestFinished(() => fanotify.close())
    return Watched.in(fanotify, directory, 'images')
  }

  static async in(fanotify: Fanotify, directory: string, name: string): Promise<Watched> {
    const watcher = await fanotify.watch({ volume: name, directory, ignored: [path('ignored')] })
    const watched = new Watched(directory, fanotify, watcher)
    void watched.#follow()
    return watched
  }

  async #follow(): Promise<void> {
    for await (const events of this.watcher.events()) this.events.push(...events)
  }

  file(name: string): string {
    return join(this.directory, name)
  }

  /** Everything that was told of what was done before. */
  async told(): Promise<readonly WatchEvent[]> {
    await this.watcher.fence()
    const events = this.events.splice(0)
    for (const event of events) if (event.kind === 'pin') onTestFinished(() => event.release())
    return events
  }

  async dirty(): Promise<ReadonlySet<string>> {
    return new Set((await this.told()).flatMap((event) => (event.kind === 'dirty' && event.path !== '' ? [event.path] : [])))
  }
}

/** A file that is written through what was opened before it had its name. */
function namedLater(directory: string, name: string): { readonly fd: number; readonly inode: bigint } {
  const fd = openSync(directory, O_TMPFILE | constants.O_WRONLY, 0o600)
  const at = openSync(dirname(name), constants.O_RDONLY | constants.O_DIRECTORY)
  onTestFinished(() => {
    closeSync(fd)
    closeSync(at)
  })
  libc?.linkOpen(fd, at, basename(name))
  return { fd, inode: fstatSync(fd, { bigint: true }).ino }
}

const isRoot = process.getuid?.() === 0
if (!isRoot && process.env['CI'] !== undefined) throw new Error('fanotify needs root')

describe.skipIf(!isRoot)('watching through fanotify (needs root)', () => {
  it('tells of everything that is done to a name, behind a fence', async () => {
    const watched = await Watched.open()
    for (const name of ['changed', 'renamed', 'deleted', 'mode']) writeFileSync(watched.file(name), '')
    mkdirSync(watched.file('d'))
    await watched.told()
    writeFileSync(watched.file('d/made'), 'x')
    writeFileSync(watched.file('changed'), 'x')
    renameSync(watched.file('renamed'), watched.file('d/to'))
    rmSync(watched.file('deleted'))
    chmodSync(watched.file('mode'), 0o600)
    symlinkSync('nowhere', watched.file('link'))
    linkSync(watched.file('changed'), watched.file('hard'))
    writeFileSync(Buffer.concat([Buffer.from(watched.file('d/')), Buffer.from([0xff, 0x0a])]), '')
    const dirty = await watched.dirty()
    expect([...dirty].sort()).toEqual(
      expect.arrayContaining(['d/made', 'changed', 'renamed', 'd/to', 'deleted', 'mode', 'link', 'hard', 'd/\xff\n'].sort()),
    )
  })

  it('S06 tells of what is made in a directory that is new itself', async () => {
    const watched = await Watched.open()
    mkdirSync(watched.file('1/2/3'), { recursive: true })
    writeFileSync(watched.file('1/2/3/f.tmp'), 'x')
    renameSync(watched.file('1/2/3/f.tmp'), watched.file('1/2/3/f'))
    expect(await watched.dirty()).toEqual(new Set(['1', '1/2', '1/2/3', '1/2/3/f.tmp', '1/2/3/f']))
  })

  it('S07 tells of what is made in a directory that was deleted and made again', async () => {
    const watched = await Watched.open()
    for (let round = 0; round < 3; round++) {
      mkdirSync(watched.file('d'))
      writeFileSync(watched.file('d/f'), 'x')
      expect(await watched.dirty()).toEqual(new Set(['d', 'd/f']))
      rmSync(watched.file('d'), { recursive: true })
      expect(await watched.dirty()).toContain('d')
    }
  })

  it.skipIf(!canMount)('S07 goes on while directories are made and deleted so fast that their inodes change hands at once', async () => {
    const watched = await Watched.open(makeFilesystem('ext4', CHURN_FILESYSTEM_BYTES).at)
    const churns = ['a', 'b'].map((name) =>
      once(spawn('python3', ['-c', CHURN, watched.file(name), `${CHURN_SECONDS}`], { stdio: 'inherit' }), 'exit'),
    )
    const ended = Promise.all(churns)
    for (let codes: unknown[][] | undefined; codes === undefined; codes = await Promise.race([ended, setTimeout(20, undefined)])) {
      await watched.watcher.fence()
      for (const event of watched.events.splice(0)) expect(event).not.toMatchObject({ isGap: true })
    }
    expect((await ended).flat()).toEqual([0, null, 0, null])
    expect(watched.fanotify.hasFailed).toBe(false)
    writeFileSync(watched.file('afterwards'), 'x')
    expect(await watched.dirty()).toContain('afterwards')
  })

  it('says of a renamed directory where it went, and of one that was moved in that it must be scanned', async () => {
    const outside = scratchDirectory()
    const watched = await Watched.open()
    mkdirSync(watched.file('a/b'), { recursive: true })
    mkdirSync(join(outside, 'in/deep'), { recursive: true })
    await watched.told()
    renameSync(watched.file('a'), watched.file('z'))
    expect(await watched.told()).toContainEqual({ kind: 'renamed', path: 'a', to: 'z' })
    writeFileSync(watched.file('z/b/f'), 'x')
    expect(await watched.dirty()).toContain('z/b/f')
    renameSync(join(outside, 'in'), watched.file('in'))
    expect(await watched.told()).toContainEqual(expect.objectContaining({ kind: 'rescan', path: 'in', isShallow: false }))
    renameSync(watched.file('in'), join(outside, 'out'))
    expect(await watched.dirty()).toContain('in')
  })

  it('tells of files by their inodes that are written through what was open before they had names', async () => {
    const watched = await Watched.open()
    const files = [scratchDirectory(), watched.directory, watched.directory].map((directory, i) =>
      namedLater(directory, watched.file(`f${i}`)),
    )
    expect(await watched.dirty()).toEqual(new Set(['f0', 'f1', 'f2']))
    for (const { fd } of [...files, ...files]) writeSync(fd, 'x')
    fchmodSync(files[0]?.fd ?? -1, 0o640)
    const told = (await watched.told()).flatMap((event) => (event.kind === 'inodes' ? [...event.inodes] : []))
    // Others may be told of too: whose they are is not known from an inode.
    expect(told).toEqual(expect.arrayContaining(files.map(({ inode }) => inode)))
  })

  it('tells of them soon, although nothing else happens and nobody asks', async () => {
    const watched = await Watched.open()
    const { fd, inode } = namedLater(watched.directory, watched.file('f'))
    await watched.told()
    writeSync(fd, 'x')
    const inodes = (): bigint[] => watched.events.flatMap((event) => (event.kind === 'inodes' ? [...event.inodes] : []))
    await expect.poll(inodes).toContain(inode)
  })

  it('tells of them also while another volume goes on with what the life before it left', async () => {
    const kept = new KeptDescriptors()
    const [directory, other] = [scratchDirectory(), scratchDirectory()]
    const before = await Watched.open(directory, kept)
    const otherBefore = await Watched.in(before.fanotify, other, 'db')
    for (const { watcher } of [before, otherBefore]) watcher.verified([])
    writeFileSync(join(other, 'read'), 'x')
    await otherBefore.told()
    await before.fanotify.close()
    await kept.arrived()
    const after = await Watched.open(directory, kept)
    const { fd, inode } = namedLater(directory, after.file('f'))
    await after.told()
    writeSync(fd, 'x')
    // It has been read, and waits for more.
    await setTimeout(10)
    const otherAfter = await Watched.in(after.fanotify, other, 'db')
    expect(otherAfter.watcher.isContinuous).toBe(true)
    expect(await otherAfter.dirty()).toEqual(new Set(['read']))
    expect(after.events.flatMap((event) => (event.kind === 'inodes' ? [...event.inodes] : []))).toContain(inode)
  })

  it('holds versions open that were replaced and deleted before anybody looked', async () => {
    const watched = await Watched.open()
    for (let i = 0; i < 20; i++) {
      writeFileSync(watched.file('f.tmp'), `version ${i}`)
      renameSync(watched.file('f.tmp'), watched.file('f'))
    }
    for (let i = 0; i < 20; i++) {
      writeFileSync(watched.file(`gone${i}`), `gone ${i}`)
      unlinkSync(watched.file(`gone${i}`))
    }
    const pins = (await watched.told()).filter((event) => event.kind === 'pin')
    const contents = pins.map(({ fd }) => {
      const bytes = Buffer.alloc(100)
      return bytes.toString('utf8', 0, readSync(fd, bytes, 0, 100, 0))
    })
    expect(contents).toEqual([
      ...Array.from({ length: 20 }, (_, i) => `version ${i}`),
      ...Array.from({ length: 20 }, (_, i) => `gone ${i}`),
    ])
    expect(pins.slice(-20).map((pin) => pin.path)).toEqual(Array.from({ length: 20 }, (_, i) => `gone${i}`))
  })

  it('says of a file that is written and not closed that it is open, and who writes it', async () => {
    const watched = await Watched.open()
    const fd = openSync(watched.file('log'), 'w')
    await watched.told()
    writeSync(fd, 'x')
    const written = (await watched.told()).filter((event) => event.kind === 'dirty')
    expect(written).toMatchObject([
      { path: 'log', isOpen: true, writer: { uid: process.getuid?.(), pid: process.pid, executable: process.execPath } },
    ])
    closeSync(fd)
    expect((await watched.told()).filter((event) => event.kind === 'dirty')).toMatchObject([{ path: 'log', isOpen: false }])
  })

  it('leaves out what is ignored, and what lies outside', async () => {
    const watched = await Watched.open()
    mkdirSync(watched.file('ignored'))
    writeFileSync(watched.file('ignored/f'), 'x')
    writeFileSync(join(scratchDirectory(), 'elsewhere'), 'x')
    writeFileSync(watched.file('seen'), 'x')
    expect([...(await watched.dirty())]).toEqual(['seen'])
  })

  it('watches a bind mount, and takes nothing of the rest of its filesystem for it', async () => {
    const whole = scratchDirectory()
    mkdirSync(join(whole, 'shown/d'), { recursive: true })
    const at = scratchDirectory()
    execFileSync('mount', ['--bind', join(whole, 'shown'), at])
    onTestFinished(() => void execFileSync('umount', ['-l', at]))
    const watched = await Watched.open(at)
    writeFileSync(join(whole, 'outside'), 'x')
    writeFileSync(join(whole, 'shown/d/through the other name'), 'x')
    writeFileSync(join(at, 'd/f'), 'x')
    expect(await watched.dirty()).toEqual(new Set(['d/through the other name', 'd/f']))
  })

  it('serves several volumes of one filesystem', async () => {
    const first = await Watched.open()
    const second = await Watched.in(first.fanotify, scratchDirectory(), 'db')
    writeFileSync(first.file('a'), 'x')
    writeFileSync(second.file('b'), 'x')
    expect(await first.dirty()).toEqual(new Set(['a']))
    expect(await second.dirty()).toEqual(new Set(['b']))
  })

  it('goes on with the others when a volume is let go, and takes it up again', async () => {
    const first = await Watched.open()
    const second = await Watched.in(first.fanotify, scratchDirectory(), 'db')
    await second.watcher.close()
    mkdirSync(first.file('d'))
    writeFileSync(first.file('d/a'), 'x')
    expect(await first.dirty()).toEqual(new Set(['d', 'd/a']))
    const again = await Watched.in(first.fanotify, second.directory, 'db')
    await first.watcher.close()
    mkdirSync(again.file('e'))
    writeFileSync(again.file('e/b'), 'x')
    expect(await again.dirty()).toEqual(new Set(['e', 'e/b']))
  })

  it('proves itself by a canary', async () => {
    const watched = await Watched.open(scratchDirectory(), new KeptDescriptors(), process.pid)
    await expect.poll(() => watched.watcher.provenMs, { timeout: 10_000 }).toBeGreaterThan(0)
    expect(watched.watcher.silentMs).toBeLessThan(15_000)
  })

  it('goes on where the life before it ended, with what that one had not dealt with', async () => {
    const kept = new KeptDescriptors()
    const directory = scratchDirectory()
    const before = await Watched.open(directory, kept)
    expect(before.watcher.isContinuous).toBe(false)
    before.watcher.verified([])
    writeFileSync(join(directory, 'settled'), 'x')
    await before.told()
    const mark = before.watcher.mark()
    writeFileSync(join(directory, 'read'), 'x')
    await before.told()
    before.watcher.settled(mark)
    await before.watcher.fence()
    await before.fanotify.close()
    writeFileSync(join(directory, 'meanwhile'), 'x')
    await kept.arrived()
    const after = await Watched.open(directory, kept)
    expect(after.watcher.isContinuous).toBe(true)
    expect(await after.dirty()).toEqual(new Set(['read', 'meanwhile']))
  })

  it('does not call itself continuous where the life before had doubts, or watched something else', async () => {
    const kept = new KeptDescriptors()
    const directory = scratchDirectory()
    const before = await Watched.open(directory, kept)
    before.watcher.verified([])
    before.watcher.doubted()
    await before.watcher.fence()
    await before.fanotify.close()
    await kept.arrived()
    const after = await Watched.open(directory, kept)
    expect(after.watcher.isContinuous).toBe(false)
    const other = await Watched.in(after.fanotify, scratchDirectory(), 'db')
    expect(other.watcher.isContinuous).toBe(false)
  })

  it('releases what was never asked for when it is closed', async () => {
    const directory = scratchDirectory()
    const descriptors = new KeptDescriptors()
    const fanotify = Fanotify.open({ stateDir: scratchDirectory(), descriptors, log: silentLog, isQueueLimited: false, ownPid: -1 })
    onTestFinished(() => fanotify.close())
    const watcher = await fanotify.watch({ volume: 'images', directory, ignored: [] })
    writeFileSync(join(directory, 'f'), 'x')
    await expect.poll(() => openOf(join(directory, 'f')), { timeout: 10_000 }).toBeGreaterThan(0)
    await watcher.close()
    await expect.poll(() => openOf(join(directory, 'f')), { timeout: 10_000 }).toBe(0)
  })
})

/** How many descriptors this process holds of a file. */
function openOf(file: string): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === file
    } catch {
      // The descriptor by which the directory was listed.
      return false
    }
  }).length
}
