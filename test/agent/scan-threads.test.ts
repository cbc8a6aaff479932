import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ScannedTree } from '../support/scanned-tree.ts'
import { scratchDirectory } from '../support/scratch.ts'

const DIRECTORIES = 120
const FILES_EACH = 50
/** Twenty-odd parts are found: by then more threads would long have begun. */
const TAKE_MS = 80
/** A busy host may find the first part late, and not by half of this. */
const ALONE_MS = 600

describe('scan threads', () => {
  it('are no more than one while what that one finds is not taken', async () => {
    const root = scratchDirectory()
    for (let d = 0; d < DIRECTORIES; d++) {
      mkdirSync(join(root, `d${d}`))
      for (let f = 0; f < FILES_EACH; f++) writeFileSync(join(root, `d${d}`, `f${f}`), '')
    }
    const tree = await ScannedTree.open(root, ALONE_MS)
    const { tasks, differences } = await tree.scan({ takeMs: TAKE_MS })
    expect(differences.length).toBeGreaterThanOrEqual(DIRECTORIES * (FILES_EACH + 1))
    expect(tasks).toBe(1)
  })
})
