/** Renamed directories: the replica renames them too, whatever else a round does to them, and ends where a restore does. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Materializer } from '../../collector/materialize.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { type RelativePath, ROOT } from '../../shared/path.ts'
import { expectEqual, follow, followedStore } from '../support/followed-store.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { RunningReplica } from '../support/running-replica.ts'
import { Store } from '../support/store.ts'

function countingReads(store: Store): { reads: number } {
  const count = { reads: 0 }
  const real = store.history.readChunk.bind(store.history)
  store.history.readChunk = (digest) => {
    count.reads += 1
    return real(digest)
  }
  return count
}

function study(writer: JournalWriter, path: string): void {
  writer.put(path, directoryVersion())
  writer.put(`${path}/series`, directoryVersion({ mode: 0o750 }))
  for (const name of ['1', '2']) writer.file(`${path}/series/${name}`, Buffer.from(`${path} ${name}`))
}

describe('a directory that is renamed', () => {
  it('is renamed in the replica: no content is read, no file is written anew', async () => {
    const site = await followedStore((writer) => study(writer, 'incoming'))
    const inode = statSync(join(site.root, 'incoming/series/1')).ino
    const count = countingReads(site.store)
    site.writer.rename('incoming', 'done')
    await follow(site)
    expect(statSync(join(site.root, 'done/series/1')).ino).toBe(inode)
    expect(count.reads).toBe(0)
    expect(readdirSync(site.root)).toEqual(['done'])
    await expectEqual(site)
  })

  it('takes the place of a directory that was there, with nothing left of it', async () => {
    const site = await followedStore((writer) => {
      study(writer, 'new')
      study(writer, 'old')
      writer.file('old/series/3', Buffer.from('only in the old one'))
    })
    const count = countingReads(site.store)
    site.writer.rename('new', 'old')
    await follow(site)
    expect(count.reads).toBe(0)
    expect(readdirSync(join(site.root, 'old/series'))).toEqual(['1', '2'])
    await expectEqual(site)
  })

  it('takes the place of a file and of a symlink', async () => {
    const site = await followedStore((writer) => {
      study(writer, 'a')
      study(writer, 'b')
      writer.file('f', Buffer.from('a file'))
      writer.put('l', symlinkVersion('a'))
    })
    site.writer.rename('a', 'f')
    site.writer.rename('b', 'l')
    await follow(site)
    await expectEqual(site)
  })

  it('is followed through a chain, and a swap, within one round', async () => {
    const site = await followedStore((writer) => {
      study(writer, 'a')
      study(writer, 'x')
      study(writer, 'y')
    })
    const count = countingReads(site.store)
    site.writer.rename('a', 'b')
    site.writer.rename('b', 'c')
    site.writer.rename('x', 'tmp')
    site.writer.rename('y', 'x')
    site.writer.rename('tmp', 'y')
    await follow(site)
    expect(count.reads).toBe(0)
    expect(readFileSync(join(site.root, 'y/series/1'), 'utf8')).toBe('x 1')
    await expectEqual(site)
  })

  it('has its changes from before and after the rename, and nothing else is written', async () => {
    const site = await followedStore((writer) => study(writer, 'd'))
    const count = countingReads(site.store)
    site.writer.file('d/series/1', Buffer.from('changed before'))
    site.writer.remove('d/series/2')
    site.writer.file('d/series/3', Buffer.from('new before'))
    site.writer.rename('d', 'e')
    site.writer.file('e/series/4', Buffer.from('new after'))
    site.writer.file('e/series/3', Buffer.from('changed after'))
    site.writer.put('d', directoryVersion())
    site.writer.file('d/other', Buffer.from('the old name again'))
    await follow(site)
    expect(count.reads).toBe(4)
    await expectEqual(site)
  })

  it('moves into a directory that was made in the same round, and out of one that was removed', async () => {
    const site = await followedStore((writer) => {
      writer.put('gone', directoryVersion())
      study(writer, 'gone/d')
      writer.file('gone/stays-behind', Buffer.from('x'))
    })
    const count = countingReads(site.store)
    site.writer.put('2026', directoryVersion())
    site.writer.put('2026/11', directoryVersion())
    site.writer.rename('gone/d', '2026/11/d')
    site.writer.remove('gone')
    await follow(site)
    expect(count.reads).toBe(0)
    await expectEqual(site)
  })

  it('keeps its hard links, within it and to elsewhere, and takes new ones', async () => {
    const linked = { inode: 4711n, links: 3 }
    const site = await followedStore((writer) => {
      study(writer, 'd')
      writer.file('d/one', Buffer.from('linked'), linked)
      writer.file('d/two', Buffer.from('linked'), linked)
      writer.file('outside', Buffer.from('linked'), linked)
    })
    site.writer.rename('d', 'e')
    site.writer.file('e/three', Buffer.from('linked'), { ...linked, links: 4 })
    await follow(site)
    // And where only names within it are left to link to.
    site.writer.remove('outside')
    await follow(site)
    site.writer.rename('e', 'g')
    site.writer.file('g/four', Buffer.from('linked'), { ...linked, links: 4 })
    site.writer.file('outside', Buffer.from('linked'), { ...linked, links: 5 })
    site.writer.rename('g', 'e')
    await follow(site)
    const inodes = ['e/one', 'e/two', 'e/three', 'e/four', 'outside'].map((path) => statSync(join(site.root, path)).ino)
    expect(new Set(inodes).size).toBe(1)
    await expectEqual(site)
  })

  it('differs from the old name in case only', async () => {
    const site = await followedStore((writer) => {
      study(writer, 'Study')
      writer.file('File', Buffer.from('x'))
    })
    site.writer.rename('Study', 'study')
    site.writer.rename('File', 'file')
    await follow(site)
    expect(readdirSync(site.root)).toEqual(['file', 'study'])
    await expectEqual(site)
  })

  it('takes along what could not be written below it, which is tried again under the new name', async () => {
    const site = await followedStore((writer) => {
      study(writer, 'd')
      study(writer, 'e')
    })
    const real = site.store.history.readChunk.bind(site.store.history)
    site.store.history.readChunk = () => {
      throw new PacsimileError('damage', 'not now')
    }
    for (const name of ['d/unwritten', 'd/series/1', 'e/series/2']) site.writer.file(name, Buffer.from('content'))
    await follow(site)
    site.writer.rename('d', 'e')
    await follow(site)
    const problems = site.running.replica.problems(site.writer.agent, VOLUME)
    expect([...problems.keys()].sort()).toEqual(['e/series/1', 'e/unwritten'])
    site.store.history.readChunk = real
    const count = countingReads(site.store)
    site.writer.rename('e', 'f')
    await follow(site)
    expect(count.reads).toBe(2)
    expect([...problems]).toEqual([])
    await expectEqual(site)
  })

  it('does not bring along what was below it before the directory above was removed and made again', async () => {
    const site = await followedStore((writer) => {
      writer.put('p', directoryVersion())
      study(writer, 'p/d')
    })
    site.writer.remove('p')
    site.writer.put('p', directoryVersion())
    site.writer.put('p/d', directoryVersion())
    site.writer.file('p/d/new', Buffer.from('new'))
    site.writer.rename('p/d', 'q')
    await follow(site)
    expect(readdirSync(join(site.root, 'q'))).toEqual(['new'])
    await expectEqual(site)
  })

  it('has its own content where the directory that it lay in had come by a rename that was not made on disk', async () => {
    const site = await followedStore((writer) => {
      writer.put('x', directoryVersion())
      study(writer, 'x/d')
      writer.put('y', directoryVersion())
      writer.put('y/d', directoryVersion())
      writer.file('y/d/old', Buffer.from('old'))
    })
    vi.spyOn(Materializer.prototype, 'renameDirectory').mockReturnValueOnce(false)
    onTestFinished(() => {
      vi.restoreAllMocks()
    })
    site.writer.rename('x', 'y')
    site.writer.rename('y/d', 'z')
    await follow(site)
    expect(readdirSync(join(site.root, 'z'))).toEqual(['series'])
    await expectEqual(site)
  })

  it('has the content of a file that the replaced directory had under the same name, with other times', async () => {
    const site = await followedStore((writer) => {
      for (const name of ['d', 'e']) {
        writer.put(name, directoryVersion())
        writer.file(`${name}/f`, Buffer.from(`content of ${name}`))
      }
    })
    site.writer.rename('d', 'e')
    site.writer.file('e/f', Buffer.from('content of e'), { mtimeNs: 5n })
    await follow(site)
    expect(readFileSync(join(site.root, 'e/f'), 'utf8')).toBe('content of e')
    await expectEqual(site)
  })

  it('is written path by path where it cannot be renamed', async () => {
    const site = await followedStore((writer) => study(writer, 'd'))
    vi.spyOn(Materializer.prototype, 'renameDirectory').mockImplementation(() => {
      throw Object.assign(new Error('EXDEV: rename'), { code: 'EXDEV' })
    })
    onTestFinished(() => {
      vi.restoreAllMocks()
    })
    site.writer.rename('d', 'e')
    await follow(site)
    await expectEqual(site)
  })

  it('is whole after a restart between the rename on disk and the end of the round', async () => {
    const site = await followedStore((writer) => study(writer, 'd'))
    const stopped = vi.spyOn(Materializer.prototype, 'makeDirectory').mockImplementation(() => {
      throw Object.assign(new Error('EIO: mkdir'), { code: 'EIO' })
    })
    onTestFinished(() => {
      vi.restoreAllMocks()
    })
    site.writer.rename('d', 'e')
    site.writer.rename('e', 'f')
    site.writer.file('f/new', Buffer.from('new'))
    await site.store.send(site.writer)
    site.running.replica.hint([site.writer.agent])
    await vi.waitFor(() => {
      expect(stopped).toHaveBeenCalled()
    })
    expect(readdirSync(site.root)).toEqual(['f'])
    await site.running.stop()
    vi.restoreAllMocks()
    const again = new RunningReplica(site.store, join(site.root, '../..'))
    await again.reach(site.writer)
    await expectEqual(site)
  })

  it('loses nothing that an earlier round removed because of records beyond it', async () => {
    const site = await followedStore((writer) => study(writer, 'd'))
    // The first round ends before the rename, and finds d/series/1 gone from the newest tree.
    site.writer.file('d/series/1', Buffer.from('changed'))
    for (let i = 0; i < 2100; i++) site.writer.put(`link${i}`, symlinkVersion(`${i}`))
    site.writer.rename('d', 'e')
    await follow(site)
    await expectEqual(site)
  })

  it('of 10,000 entries is a rename, not 10,000 writes', async () => {
    const site = await followedStore((writer) => {
      writer.put('big', directoryVersion())
      for (let i = 0; i < 10; i++) {
        writer.put(`big/${i}`, directoryVersion())
        for (let j = 0; j < 1000; j++) writer.put(`big/${i}/${j}`, symlinkVersion('x'))
      }
    })
    const put = vi.spyOn(Materializer.prototype, 'put')
    onTestFinished(() => {
      vi.restoreAllMocks()
    })
    site.writer.rename('big', 'large')
    await follow(site)
    expect(put).not.toHaveBeenCalled()
    expect(readdirSync(site.root)).toEqual(['large'])
    expect(readdirSync(join(site.root, 'large/9'))).toHaveLength(1000)
  }, 120_000)
})

describe('content that was lost', () => {
  it('is known to be so wherever renames bring it, and is no damage', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    study(writer, 'd')
    const { record } = writer.file('d/series/lost', Buffer.from('could not be kept'))
    if (record.kind !== 'put' || record.version.kind !== 'file') throw new Error('not a file')
    writer.rename('d', 'e')
    writer.append({ kind: 'lost', volume: VOLUME, path: record.path, lostSeq: record.seq })
    writer.put('f', directoryVersion())
    writer.rename('e/series', 'f/series')
    await store.send(writer)
    const lost = async (): Promise<string[]> => {
      const found = []
      for await (const entry of store.history.tree(writer.agent, VOLUME, ROOT, writer.end))
        if (entry.absent === 'lost') found.push(entry.path)
      return found
    }
    expect(await lost()).toEqual(['f/series/lost'])
    // Put again, it is lost no more.
    writer.file('f/series/lost', Buffer.from('kept this time'))
    await store.send(writer)
    expect(await lost()).toEqual([])
  })
})

describe('the log of a path', () => {
  it('tells of what happened to the directories above it, where that changed the path', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    study(writer, 'd')
    writer.put('e', directoryVersion())
    writer.rename('d', 'f')
    writer.put('d', directoryVersion())
    writer.rename('e', 'd')
    writer.remove('f')
    await store.send(writer)
    const log = async (path: string): Promise<string[]> => {
      const query = { path: path as RelativePath, from: undefined, until: undefined }
      const found = []
      for await (const { record } of store.history.log(writer.agent, VOLUME, query)) found.push(record.kind)
      return found
    }
    expect(await log('d/series/1')).toEqual(['put', 'rename'])
    expect(await log('f/series/1')).toEqual(['rename', 'remove'])
    expect(await log('f/series/nothing')).toEqual([])
  })
})
