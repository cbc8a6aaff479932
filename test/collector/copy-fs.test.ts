import { appendFileSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Copy, sourceOf } from '../../collector/repository/copy.ts'
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
