/** What every place of a copy promises (collector/repository/copy.ts), for each kind of place to be held to. */
import { describe, expect, it } from 'vitest'
import { type Copy, copiedSource, sourceOf } from '../../collector/repository/copy.ts'
import { Lease } from '../../collector/repository/copy-lease.ts'
import { Random } from '../support/workload.ts'

const NAME = 'packs/01/000000000001.pack'
const OTHER_NAME = 'packs/02/000000000002.pack'
const WRITER = { repository: 'r', instance: '1'.repeat(32) }
const STRANGER = { repository: 'r', instance: '2'.repeat(32) }

/** Two doors to one new and empty place, of which the first is the writer's. */
export interface CopyPlaces {
  readonly copy: Copy
  readonly other: Copy
}

async function all(copy: Copy, name: string, bytes = 1 << 30): Promise<string> {
  return (await copy.read(name, 0, bytes)).toString('latin1')
}

async function listed(copy: Copy, prefix: string): Promise<{ name: string; bytes: number; isFinished: boolean }[]> {
  const found = []
  for await (const { name, bytes, isFinished } of copy.list(prefix)) found.push({ name, bytes, isFinished })
  return found
}

export function copySuite(kind: string, make: () => Promise<CopyPlaces>): void {
  const places = async (): Promise<CopyPlaces> => {
    const made = await make()
    await Lease.take(made.copy, WRITER)
    return made
  }

  describe(`a copy of kind ${kind}`, () => {
    it('holds what was appended, and reads it as one file', async () => {
      const { copy, other } = await places()
      await copy.append(NAME, 0, Buffer.from('abc'))
      await copy.append(NAME, 3, Buffer.from('defg'))
      expect(await all(other, NAME)).toBe('abcdefg')
      expect((await other.read(NAME, 2, 3)).toString()).toBe('cde')
      expect((await other.read(NAME, 5, 10)).toString()).toBe('fg')
      expect(await other.read(NAME, 7, 10)).toHaveLength(0)
      expect(await listed(other, 'packs/')).toEqual([{ name: NAME, bytes: 7, isFinished: false }])
    })

    it('says that a file is not there', async () => {
      const { copy } = await places()
      await expect(copy.read(NAME, 0, 1)).rejects.toMatchObject({ code: 'not-found' })
      expect(await copy.find('keys/00000000.json')).toBeUndefined()
      expect(await listed(copy, 'segments/')).toEqual([])
      await copy.remove(NAME)
    })

    it('finishes a file of which it has a beginning, and one of which it has nothing', async () => {
      const { copy, other } = await places()
      const bytes = new Random(1).bytes(5_000_000)
      await copy.append(NAME, 0, bytes.subarray(0, 100))
      await copy.append(NAME, 100, bytes.subarray(100, 4321))
      await copy.finish(NAME, sourceOf(bytes))
      await copy.finish(OTHER_NAME, sourceOf(Buffer.from('all')))
      expect(await listed(other, 'packs/')).toEqual([
        { name: NAME, bytes: bytes.length, isFinished: true },
        { name: OTHER_NAME, bytes: 3, isFinished: true },
      ])
      const source = copiedSource(other, NAME, bytes.length)
      for (const at of [0, 90, 4000, 4_999_990]) expect(await source.read(at, 1000)).toEqual(bytes.subarray(at, at + 1000))
    })

    it('takes the same once more for done, and refuses another content', async () => {
      const { copy, other } = await places()
      await copy.finish(NAME, sourceOf(Buffer.from('content')))
      await copy.finish(NAME, sourceOf(Buffer.from('content')))
      for (const text of ['c0ntent', 'content and more', 'cont'])
        await expect(copy.finish(NAME, sourceOf(Buffer.from(text)))).rejects.toMatchObject({ code: 'fenced' })
      expect(await all(other, NAME)).toBe('content')
    })

    it('refuses to append where something else is', async () => {
      const { copy, other } = await places()
      await copy.append(NAME, 0, Buffer.from('abc'))
      await expect(other.append(NAME, 0, Buffer.from('xyz'))).rejects.toThrow(/writer|writes|written/)
      expect(await all(other, NAME)).toBe('abc')
    })

    it('cuts what is damaged where a file grows, and goes on there', async () => {
      const { copy, other } = await places()
      for (const [offset, text] of [
        [0, 'abc'],
        [3, 'def'],
        [6, 'ghi'],
      ] as const)
        await copy.append(NAME, offset, Buffer.from(text))
      const left = await copy.cut(NAME, 4)
      expect(left).toBeLessThanOrEqual(4)
      expect(await all(other, NAME)).toBe('abcdefghi'.slice(0, left))
      await copy.append(NAME, left, Buffer.from('xyz'))
      expect(await all(other, NAME)).toBe(`${'abcdefghi'.slice(0, left)}xyz`)
    })

    it('replaces a damaged file, and removes one', async () => {
      const { copy, other } = await places()
      await copy.finish(NAME, sourceOf(Buffer.from('damaged')))
      await copy.replace(NAME, sourceOf(Buffer.from('right')))
      expect(await all(other, NAME)).toBe('right')
      await copy.append(OTHER_NAME, 0, Buffer.from('a'))
      await copy.append(OTHER_NAME, 1, Buffer.from('b'))
      await copy.remove(NAME)
      await copy.remove(OTHER_NAME)
      expect(await listed(other, 'packs/')).toEqual([])
    })

    it('writes a small file over what was seen, and over nothing else', async () => {
      const { copy, other } = await places()
      await copy.write('keys/0000000a.json', Buffer.from('1'), 'nothing')
      await copy.write('keys/0000000a.json', Buffer.from('1'), 'nothing')
      await expect(copy.write('keys/0000000a.json', Buffer.from('2'), 'nothing')).rejects.toMatchObject({ code: 'fenced' })
      const seen = await other.find('keys/0000000a.json')
      expect(seen?.bytes.toString()).toBe('1')
      await copy.write('keys/0000000a.json', Buffer.from('2'), seen ?? 'nothing')
      await expect(copy.write('keys/0000000a.json', Buffer.from('3'), seen ?? 'nothing')).rejects.toMatchObject({ code: 'fenced' })
      await copy.write('keys/0000000a.json', Buffer.from('4'), 'anything')
      expect((await other.find('keys/0000000a.json'))?.bytes.toString()).toBe('4')
      expect(await listed(other, 'keys/')).toEqual([{ name: 'keys/0000000a.json', bytes: 1, isFinished: expect.any(Boolean) }])
    })

    it('has one writer, until another takes over', async () => {
      const { copy, other } = await places()
      await Lease.take(copy, WRITER)
      await expect(Lease.take(other, STRANGER)).rejects.toMatchObject({ code: 'fenced' })
      await expect(Lease.takeOver(other, STRANGER, false)).rejects.toThrow('--take-over')
      expect((await Lease.takeOver(other, STRANGER, true)).token).toBe(2)
      await expect(Lease.take(copy, WRITER)).rejects.toMatchObject({ code: 'fenced' })
    })

    it('is taken over without a question when its writer has released it', async () => {
      const { copy, other } = await places()
      await (await Lease.take(copy, WRITER)).release()
      expect((await Lease.takeOver(other, STRANGER, false)).token).toBe(2)
    })

    it('lets nobody go on behind a fence', async () => {
      const { copy, other } = await places()
      await copy.append(NAME, 0, Buffer.from('abc'))
      await Lease.takeOver(other, STRANGER, true)
      expect(await other.fence(NAME, 3)).toBe(true)
      await other.finish(NAME, copiedSource(other, NAME, 3))
      await expect(copy.append(NAME, 3, Buffer.from('d'))).rejects.toMatchObject({ code: 'fenced' })
      await expect(copy.finish(NAME, sourceOf(Buffer.from('abcde')))).rejects.toMatchObject({ code: 'fenced' })
      expect(await all(other, NAME)).toBe('abc')
    })
  })
}
