import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Materializer } from '../../collector/materialize.ts'
import { SafeDirectory } from '../../collector/safe-directory.ts'
import { libc } from '../../shared/libc.ts'
import { byteString, type RelativePath } from '../../shared/path.ts'
import { JournalWriter } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'

const DIRECTORIES = 700
const OPEN_ALLOWED = 300

function openBelow(root: string): number {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      // The one by which they were listed.
      return ''
    }
  })
  return links.filter((link) => link.startsWith(root)).length
}

describe('a materializer', () => {
  it.each([
    ['making directories', (files: Materializer, i: number) => files.makeDirectory(`d${i}/below` as RelativePath)],
    ['listing', (files: Materializer, i: number) => files.list(`d${i}` as RelativePath)],
    ['asking for files', (files: Materializer, i: number) => files.hasFile(`d${i}/f` as RelativePath)],
    ['removing', (files: Materializer, i: number) => files.removeAll(`d${i}` as RelativePath)],
  ])('holds a bounded number of directories open while %s', (_, act) => {
    const root = scratchDirectory()
    for (let i = 0; i < DIRECTORIES; i++) mkdirSync(join(root, `d${i}`))
    const files = new Materializer(root, () => Buffer.alloc(0), { setuid: false, special: false })
    onTestFinished(() => files.close())
    for (let i = 0; i < DIRECTORIES; i++) act(files, i)
    expect(openBelow(root)).toBeLessThan(OPEN_ALLOWED)
  })
})

describe('a file that is put where there is nothing', () => {
  const CONTENT = Buffer.from('what was archived')
  const XATTRS = [{ name: 'user.note', value: 'value\xff' }]
  const version = new JournalWriter().fileVersion(CONTENT, { mode: 0o640, mtimeNs: 1_234_567_890_123_456_789n, xattrs: XATTRS })
  const opened = (): { root: string; files: Materializer } => {
    const root = scratchDirectory()
    const files = new Materializer(root, () => CONTENT, { setuid: false, special: false, isNew: true })
    onTestFinished(() => files.close())
    return { root, files }
  }
  const expectWhole = (root: string, name: string): void => {
    const file = join(root, name)
    expect(readFileSync(file).equals(CONTENT)).toBe(true)
    const { mode, mtimeNs } = lstatSync(file, { bigint: true })
    expect(mode & 0o7777n).toBe(0o640n)
    expect(mtimeNs).toBe(version.mtimeNs)
    expect(libc?.xattrs(byteString(file))).toEqual(XATTRS)
  }

  it('has no name at all until it is whole', () => {
    const { root, files } = opened()
    mkdirSync(join(root, 'd'))
    void files.putFile('d/f' as RelativePath, version, (take) => {
      take(CONTENT)
      expect(readdirSync(join(root, 'd'))).toEqual([])
    })
    expect(readdirSync(join(root, 'd'))).toEqual(['f'])
    expectWhole(root, 'd/f')
  })

  it('leaves nothing where its content is another one', () => {
    const { root, files } = opened()
    expect(() => files.putFile('f' as RelativePath, version, (take) => take(Buffer.from('what was not there')))).toThrow('digest')
    expect(readdirSync(root)).toEqual([])
  })

  it('takes the place of whatever is there all the same', async () => {
    const { root, files } = opened()
    writeFileSync(join(root, 'file'), 'old')
    mkdirSync(join(root, 'directory/below'), { recursive: true })
    symlinkSync('/nowhere', join(root, 'link'))
    for (const name of ['file', 'directory', 'link']) {
      await files.put(name as RelativePath, version)
      expectWhole(root, name)
    }
    expect(readdirSync(root).toSorted()).toEqual(['directory', 'file', 'link'])
  })

  it('has a name of its own meanwhile where the filesystem has no files without one', async () => {
    const refused = vi.spyOn(SafeDirectory.prototype, 'openUnnamed').mockImplementation(() => {
      throw Object.assign(new Error('EOPNOTSUPP'), { code: 'EOPNOTSUPP', errno: -95 })
    })
    const { root, files } = opened()
    for (const name of ['f', 'g']) {
      await files.put(name as RelativePath, version)
      expectWhole(root, name)
    }
    expect(refused).toHaveBeenCalledTimes(1)
    expect(readdirSync(root).toSorted()).toEqual(['f', 'g'])
  })
})
