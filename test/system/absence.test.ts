import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount, type ImageFilesystem } from '../support/image-filesystem.ts'
import { type LogLine, Site, type Status } from '../support/site.ts'
import { someFiles } from '../support/some-files.ts'
import { walkTree } from '../support/tree-walk.ts'
import { until } from '../support/until.ts'

const ALARM_SECONDS = 15
const LIMIT = { timeout: 240_000 }

const isGap = ({ op }: LogLine): boolean => op === 'gap'
/** A sweep says that whatever was not found is gone. */
const isRemoval = ({ op }: LogLine): boolean => op === 'remove' || op === 'sweep'

interface Absence {
  readonly name: string
  readonly leave: (site: Site, filesystem: ImageFilesystem, aside: string) => Promise<void>
  readonly comeBack: (site: Site, filesystem: ImageFilesystem, aside: string) => void
}

/** Moves everything in a directory to another one of the same filesystem. */
function moveContent(from: string, to: string): void {
  mkdirSync(to, { recursive: true })
  for (const name of readdirSync(from)) renameSync(join(from, name), join(to, name))
}

const ABSENCES: readonly Absence[] = [
  {
    name: 'whose filesystem is unmounted while it is watched',
    leave: async (_site, filesystem) => filesystem.unmount(),
    comeBack: (_site, filesystem) => filesystem.mount(),
  },
  {
    name: 'that is another, empty directory when the agent starts',
    leave: async (site, _filesystem, aside) => {
      await site.stop()
      renameSync(site.source, aside)
      mkdirSync(site.source)
      site.start()
    },
    comeBack: (site, _filesystem, aside) => {
      rmSync(site.source, { recursive: true })
      renameSync(aside, site.source)
    },
  },
  {
    name: 'that is empty when the agent starts',
    leave: async (site, _filesystem, aside) => {
      await site.stop()
      moveContent(site.source, aside)
      site.start()
    },
    comeBack: (site, _filesystem, aside) => moveContent(aside, site.source),
  },
]

describe.skipIf(!canMount)('S09 a volume', () => {
  it.each(ABSENCES)(
    '$name is paused with an alarm, nothing of it is called removed, and it goes on when it is back',
    LIMIT,
    async ({ leave, comeBack }) => {
      const filesystem = makeFilesystem('ext4', 1 << 30)
      const isMountPoint = leave === ABSENCES[0]?.leave
      const source = isMountPoint ? filesystem.at : join(filesystem.at, 'volume')
      mkdirSync(source, { recursive: true })
      someFiles(source)
      const site = await Site.watching({ source })
      const { installation } = site
      const before = site.log().at(-1)

      await leave(site, filesystem, join(filesystem.at, 'aside'))
      const isAlarmed = (status: Status | undefined): boolean => status?.volumes[0]?.state === 'paused' && status.alarms.length > 0
      await until('paused, with an alarm', ALARM_SECONDS, async () => (isAlarmed(await site.statusIfRunning()) ? true : undefined))
      expect(site.log({ since: before }).filter(isRemoval)).toEqual([])
      expect(walkTree(installation.replicaOf('pacs1')).size).toBeGreaterThan(50)

      comeBack(site, filesystem, join(filesystem.at, 'aside'))
      await until('watching again', 60, async () => {
        const status = await site.statusIfRunning()
        return status?.volumes[0]?.state === 'watching' ? true : undefined
      })
      writeFileSync(join(source, 'd0', 'new'), 'written when it was back')
      await site.expectEqual()
      const since = site.log({ since: before })
      expect(since.filter(({ op }) => op === 'remove')).toEqual([])
      expect(since.filter(isGap).length).toBeGreaterThan(0)
      expect(site.status.alarms).toEqual([])
      await installation.stopAll()
    },
  )

  it('would be seen to have removals where files are really deleted', async () => {
    const { at } = makeFilesystem('ext4', 1 << 30)
    someFiles(at)
    const site = await Site.watching({ source: at })
    const before = site.log().at(-1)
    rmSync(join(at, 'd0'), { recursive: true })
    await site.wait()
    expect(site.log({ since: before }).filter(({ op }) => op === 'remove').length).toBeGreaterThan(0)
  })
})
