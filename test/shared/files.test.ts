import { mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { makeDirectories } from '../../shared/files.ts'
import { scratchDirectory } from '../support/scratch.ts'

describe('directories with those above them', () => {
  it('are made where they are missing, and the first of them is named', () => {
    const top = scratchDirectory()
    expect(makeDirectories(join(top, 'a/b/c'), 0o700)).toBe(join(top, 'a'))
    for (const name of ['a', 'a/b', 'a/b/c']) expect(statSync(join(top, name)).mode & 0o7777, name).toBe(0o700)
    expect(makeDirectories(join(top, 'a/b/c'))).toBeUndefined()
    expect(makeDirectories(join(top, 'a/b/d'))).toBe(join(top, 'a/b/d'))
    symlinkSync('a', join(top, 'link'))
    expect(makeDirectories(join(top, 'link/b'))).toBeUndefined()
  })

  it('are refused as the system says where something else is in the way', () => {
    const top = scratchDirectory()
    writeFileSync(join(top, 'file'), '')
    symlinkSync('nothing', join(top, 'dangling'))
    mkdirSync(join(top, 'directory'))
    const refused = (path: string, code: string): void =>
      expect(() => makeDirectories(join(top, path)), path).toThrow(expect.objectContaining({ code }))
    refused('file', 'EEXIST')
    refused('file/a/b', 'ENOTDIR')
    refused('dangling/a', 'EEXIST')
    refused(`directory/${'n'.repeat(256)}/a`, 'ENAMETOOLONG')
  })
})
