import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount, FILESYSTEM_KINDS } from '../support/image-filesystem.ts'
import { Site } from '../support/site.ts'
import { storm } from '../support/storm.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const OPERATIONS = Number(process.env['PACSIMILE_STORM_OPERATIONS'] ?? 10_000)
/** In the gate a storm that takes long to come to rest is a finding; a long one is let come to rest, for what counts is that it is equal then. */
const PATIENCE_SECONDS = 60 + OPERATIONS / (process.env['PACSIMILE_SOAK'] === undefined ? 500 : 200)
const FILESYSTEM_BYTES = (1 << 30) + OPERATIONS * 32_768
const LIMIT = { timeout: (240 + OPERATIONS / 100) * 1000 }

describe.skipIf(!canMount)(`${OPERATIONS} operations of four processes at full speed (PACSIMILE_SEED=${SEED})`, () => {
  it.each(FILESYSTEM_KINDS)('S06 miss nothing on %s', LIMIT, async (kind) => {
    const site = await Site.watching({ source: makeFilesystem(kind, FILESYSTEM_BYTES).at })
    const report = await storm(site.source, { operations: OPERATIONS, seed: SEED })
    const copy = await site.expectEqual(PATIENCE_SECONDS)
    // The storm blew: what its writers know to have left is what was compared.
    const own = [...copy].filter(([path]) => /^w\d/.test(path))
    expect(own.filter(([, { kind }]) => kind === 'file').length).toBe(report.files)
    expect(own.filter(([, { kind }]) => kind === 'directory').length).toBe(report.directories)
    site.expectNothingMissed()
  })

  it('S06 miss nothing where more paths wait than are followed one by one, of which a scan finds the rest', LIMIT, async () => {
    const environment = { PACSIMILE_TEST_PATHS: String(OPERATIONS / 4) }
    const site = await Site.watching({ source: makeFilesystem('btrfs', FILESYSTEM_BYTES).at, environment })
    await storm(site.source, { operations: OPERATIONS, seed: SEED })
    await site.expectEqual(PATIENCE_SECONDS)
    expect(site.installation.log('pacs1')).toContain('more paths changed than can be followed one by one')
    site.expectNothingMissed()
  })

  it('are identical after at most one scan where chokidar watches, which says best-effort', LIMIT, async () => {
    const site = await Site.watching({ source: makeFilesystem('ext4', FILESYSTEM_BYTES).at, watch: 'chokidar' })
    await storm(site.source, { operations: OPERATIONS, seed: SEED })
    await site.wait(PATIENCE_SECONDS)
    site.scan()
    await site.expectEqual(PATIENCE_SECONDS)
    expect(site.status.volumes[0]).toMatchObject({ mode: 'best-effort', state: 'watching' })
    expect(site.status.volumes[0]?.reason).not.toBe('')
  })

  it('would be told apart from a tree in which one file differs', async () => {
    const { at } = makeFilesystem('ext4', FILESYSTEM_BYTES)
    await storm(at, { operations: 2000, seed: SEED })
    const copy = walkTree(at)
    const [victim] = [...copy].findLast(([, { kind, size }]) => kind === 'file' && size > 0) ?? ['']
    writeFileSync(join(at, victim), 'another content')
    expect(differences(copy, walkTree(at))).not.toEqual([])
  })
})
