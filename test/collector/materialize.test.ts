import { mkdirSync, readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Materializer } from '../../collector/materialize.ts'
import type { RelativePath } from '../../shared/path.ts'
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
