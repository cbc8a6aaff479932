import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type ByteSource, type Copy, sourceOf } from '../../collector/repository/copy.ts'
import { FsCopy } from '../../collector/repository/copy-fs.ts'
import { Lease } from '../../collector/repository/copy-lease.ts'
import { copySuite } from '../suites/copy-suite.ts'
import { scratchDirectory } from '../support/scratch.ts'

const NAME = 'packs/01/000000000001.pack'
const WRITER = { repository: 'r', instance: '1'.repeat(32) }

async function begun(directory: string): Promise<Copy> {
  const copy = await FsCopy.begin(directory)
  await Lease.take(copy, WRITER)
  await copy.write('repository.json', Buffer.from('{}'), 'nothing')
  return copy
}

copySuite('fs', async () => {
  const directory = join(scratchDirectory(), 'copy')
  return { copy: await FsCopy.begin(directory), other: await FsCopy.begin(directory) }
})

describe('a copy in a directory', () => {
  it('is a repository as any other: modes say what is finished', async () => {
    const directory = join(scratchDirectory(), 'copy')
    const copy = await begun(directory)
    await copy.append(NAME, 0, Buffer.from('abc'))
    expect(statSync(join(directory, NAME)).mode & 0o777).toBe(0o600)
    await copy.finish(NAME, sourceOf(Buffer.from('abcdef')))
    expect(statSync(join(directory, NAME)).mode & 0o777).toBe(0o400)
  })

  it('is away, not empty, where its directory or its description is missing', async () => {
    const directory = join(scratchDirectory(), 'copy')
    const copy = await begun(directory)
    await copy.append(NAME, 0, Buffer.from('abc'))
    renameSync(directory, `${directory}.away`)
    await expect(FsCopy.open(directory)).rejects.toMatchObject({ code: 'not-found' })
    mkdirSync(directory)
    await expect(FsCopy.open(directory)).rejects.toMatchObject({ code: 'not-found' })
    await expect(copy.append(NAME, 3, Buffer.from('d'))).rejects.toThrow('mounted')
    await expect(copy.append('packs/02/000000000002.pack', 0, Buffer.from('d'))).rejects.toThrow('mounted')
    rmSync(directory, { recursive: true })
    renameSync(`${directory}.away`, directory)
    const back = await FsCopy.open(directory)
    await Lease.take(back, WRITER)
    await back.append(NAME, 3, Buffer.from('d'))
    expect((await back.read(NAME, 0, 10)).toString()).toBe('abcd')
  })

  it('is not begun among other files', async () => {
    const directory = scratchDirectory()
    writeFileSync(join(directory, 'thesis.doc'), '')
    await expect(FsCopy.begin(directory)).rejects.toMatchObject({ code: 'target-not-empty' })
  })

  it('is not begun where the system lets nobody make a directory, and that is said', async () => {
    await expect(FsCopy.begin('/proc/a/b')).rejects.toMatchObject({ code: 'io', message: expect.stringContaining('ENOENT') as string })
  })

  it('is cleared of what a writer that was killed has left of files, and not of what this one has on its way', async () => {
    const directory = join(scratchDirectory(), 'copy')
    const copy = await begun(directory)
    await copy.append(NAME, 0, Buffer.from('abc'))
    const left = ['keys/.pacsimile-tmp-0a1b2c3d.json-0123456789ab', 'packs/01/.pacsimile-tmp-000000000002.pack-0123456789ab']
    for (const name of left) writeFileSync(join(directory, name), 'half')
    const slow: ByteSource = {
      bytes: 6,
      read: async () => {
        await copy.clear?.()
        return Buffer.from('abcdef')
      },
    }
    await copy.finish('packs/02/000000000002.pack', slow)
    expect((await copy.read('packs/02/000000000002.pack', 0, 10)).toString()).toBe('abcdef')
    expect(readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => name.includes('tmp'))).toEqual([])
    expect((await copy.read(NAME, 0, 10)).toString()).toBe('abc')
  })

  it('says that somebody else may be at work where another one holds its lock', async () => {
    const directory = join(scratchDirectory(), 'copy')
    await begun(directory)
    writeFileSync(join(directory, '.pacsimile-tmp-writer.json-lock'), '')
    const other = await FsCopy.open(directory)
    await expect(Lease.take(other, WRITER)).rejects.toMatchObject({ code: 'locked', message: expect.stringContaining('writer.json') })
  })

  it('leaves no file without a beginning where all of it is cut', async () => {
    const directory = join(scratchDirectory(), 'copy')
    const copy = await begun(directory)
    await copy.append(NAME, 0, Buffer.from('abc'))
    expect(await copy.cut(NAME, 0)).toBe(0)
    expect(existsSync(join(directory, NAME))).toBe(false)
    expect(await copy.cut(NAME, 0)).toBe(0)
    await copy.append(NAME, 0, Buffer.from('def'))
    expect(readFileSync(join(directory, NAME), 'utf8')).toBe('def')
  })

  it('cuts what a crash has left behind an append', async () => {
    const directory = join(scratchDirectory(), 'copy')
    const copy = await begun(directory)
    await copy.append(NAME, 0, Buffer.from('abc'))
    appendFileSync(join(directory, NAME), '\0\0\0')
    await expect(copy.append(NAME, 3, Buffer.from('d'))).rejects.toMatchObject({ code: 'fenced' })
    expect(await copy.cut(NAME, 3)).toBe(3)
    await copy.append(NAME, 3, Buffer.from('d'))
    expect((await copy.read(NAME, 0, 10)).toString()).toBe('abcd')
  })
})
