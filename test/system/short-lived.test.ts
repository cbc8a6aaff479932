import { closeSync, mkdirSync, openSync, readFileSync, renameSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { digestHex, digestOf } from '../../shared/digest.ts'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { type LogLine, Site } from '../support/site.ts'
import { Random } from '../support/workload.ts'

const SAVES = 500
const DELETED_FILES = 3000
const NEW_DIRECTORIES = 300
const RESTORED = 3

const KINDS = ['ext4', 'xfs', 'btrfs'] as const

const digestOfText = (content: string | Buffer): string => digestHex(digestOf(Buffer.from(content)))

/** Contents that no two share, of a few KiB. */
function contents(count: number): Buffer[] {
  const random = new Random(count)
  return Array.from({ length: count }, (_, i) => Buffer.concat([Buffer.from(`content ${i} `), random.bytes(1000 + random.below(4000))]))
}

function saveAll(file: string, all: readonly Buffer[]): void {
  for (const content of all) {
    const fd = openSync(`${file}.tmp`, 'w')
    writeSync(fd, content)
    closeSync(fd)
    renameSync(`${file}.tmp`, file)
  }
}

/** What was kept of each content, by digest. */
function keptOf(site: Site, path: string): ReadonlyMap<string, LogLine> {
  const puts = site.log({ path }).filter(({ op, lost }) => op === 'put' && lost !== true)
  return new Map(puts.map((line) => [line.version?.digest ?? '', line]))
}

describe.skipIf(!canMount)('what lives for an instant', () => {
  it.each(KINDS)(`S06 ${SAVES} saves of one file, by temporary file and rename, are all kept, on %s`, async (kind) => {
    const { at } = makeFilesystem(kind, 1 << 30)
    mkdirSync(join(at, 'd'))
    const site = await Site.watching({ source: at })
    const all = contents(SAVES)
    saveAll(join(at, 'd', 'f'), all)
    await site.wait()

    const kept = keptOf(site, 'd')
    const lacking = all.filter((content) => !kept.has(digestOfText(content)))
    expect(lacking.length, 'contents that are not in the log').toBe(0)
    for (let i = 0; i < RESTORED; i++) {
      const content = all[Math.floor(((i + 0.5) * SAVES) / RESTORED)] ?? Buffer.alloc(0)
      const line = kept.get(digestOfText(content))
      const to = site.restore(`seq:${line?.epoch}:${line?.seq}`, { path: line?.path ?? '' })
      expect(readFileSync(join(to, line?.path?.split('/').at(-1) ?? '')).equals(content)).toBe(true)
    }
    await site.expectEqual()
    site.expectNothingMissed()
  })

  it('not all of these saves are kept where chokidar watches, which says best-effort', async () => {
    const { at } = makeFilesystem('ext4', 1 << 30)
    mkdirSync(join(at, 'd'))
    const site = await Site.watching({ source: at, watch: 'chokidar' })
    const all = contents(SAVES)
    saveAll(join(at, 'd', 'f'), all)
    await site.wait()
    const kept = keptOf(site, 'd')
    expect(all.filter((content) => kept.has(digestOfText(content))).length).toBeLessThan(SAVES)
    expect(kept.has(digestOfText(all.at(-1) ?? ''))).toBe(true)
    expect(site.status.volumes[0]?.mode).toBe('best-effort')
  })

  it.each(KINDS)(
    `${DELETED_FILES} files, each deleted as soon as it is written, are in the history with their content, on %s`,
    async (kind) => {
      const { at } = makeFilesystem(kind, 1 << 30)
      const site = await Site.watching({ source: at })
      const all = contents(DELETED_FILES)
      for (const [i, content] of all.entries()) {
        writeFileSync(join(at, `f${i}`), content)
        unlinkSync(join(at, `f${i}`))
      }
      await site.wait()

      const lines = site.log()
      const putOf = new Map(
        lines.filter(({ op, lost }) => op === 'put' && lost !== true).map(({ path, version }) => [path, version?.digest]),
      )
      expect(all.filter((content, i) => putOf.get(`f${i}`) !== digestOfText(content)).length, 'files that are not in the history').toBe(0)
      const removed = new Set(lines.filter(({ op }) => op === 'remove').map(({ path }) => path))
      expect(all.filter((_, i) => !removed.has(`f${i}`)).length, 'files of which no removal is recorded').toBe(0)
      await site.expectEqual()
      site.expectNothingMissed()
    },
  )

  it(`S06 a file that is moved into place in each of ${NEW_DIRECTORIES} directories that are just made is recorded without a scan`, async () => {
    const { at } = makeFilesystem('ext4', 1 << 30)
    const site = await Site.watching({ source: at })
    for (let i = 0; i < NEW_DIRECTORIES; i++) {
      const directory = join(at, `${i % 7}`, `study ${i}`, 'series')
      mkdirSync(directory, { recursive: true })
      writeFileSync(join(directory, 'f.tmp'), `image ${i}`)
      renameSync(join(directory, 'f.tmp'), join(directory, 'f'))
    }
    await site.expectEqual()
    site.expectNothingMissed()
  })
})
