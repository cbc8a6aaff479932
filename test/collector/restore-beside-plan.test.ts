/** Restoring while the plan is still being made: what is written then, and what becomes of it where either fails. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { History } from '../../collector/history.ts'
import type { ListedEntry } from '../../collector/history-source.ts'
import type { RestoreProgress } from '../../collector/restoration.ts'
import { type RestoreReport, restore } from '../../collector/restore.ts'
import type { RestoreRequest } from '../../collector/restore-plan.ts'
import { RESTORE_NOTE } from '../../collector/restore-target.ts'
import { ROOT } from '../../shared/path.ts'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { walkTree } from '../support/tree-walk.ts'
import { until } from '../support/until.ts'

const STUDIES = 5
/** More than a thread is given at once. */
const IMAGES = 1100

/** A history whose tree stops before its last study. */
class PausingHistory extends History {
  /** Before the last study is told of; may throw. */
  beforeLast: () => Promise<void> = () => Promise.resolve()

  override async *treeGroups(...asked: Parameters<History['treeGroups']>): AsyncGenerator<readonly ListedEntry[]> {
    for await (const group of super.treeGroups(...asked)) {
      const last = group.findIndex(({ path }) => path === `study-${STUDIES - 1}`)
      if (last >= 0) {
        yield group.slice(0, last)
        await this.beforeLast()
      }
      yield last < 0 ? group : group.slice(last)
    }
  }
}

interface Archive {
  readonly history: PausingHistory
  readonly request: Omit<RestoreRequest, 'to'>
}

async function archive(imageBytes = 10): Promise<Archive> {
  const store = await Store.open()
  const writer = new JournalWriter()
  for (let study = 0; study < STUDIES; study++) {
    writer.put(`study-${study}`, directoryVersion({ mtimeNs: 1_600_000_000_000_000_000n }))
    for (let i = 0; i < IMAGES; i++) writer.file(`study-${study}/${i}.dcm`, Buffer.alloc(imageBytes, `${study}.${i}`))
    writer.put(`study-${study}/link`, symlinkVersion('0.dcm'))
    await store.send(writer)
  }
  const shared = writer.fileVersion(Buffer.from('one file, two names'), { links: 2 })
  for (const name of ['study-0/a', `study-${STUDIES - 1}/b`]) writer.put(name, shared)
  await store.send(writer)
  const history = new PausingHistory(store.catalog, store.repository)
  const point = await history.point(writer.agent, VOLUME, { kind: 'head' })
  const terms = { dryRun: false, setuid: false, special: false, torn: false }
  return { history, request: { agent: writer.agent, volume: VOLUME, path: ROOT, point, ...terms } }
}

const newTarget = (): string => join(scratchDirectory(), 'to')
const imagesIn = (to: string): number =>
  existsSync(to) ? readdirSync(to, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.dcm')).length : 0

/** Thousands of files, on a disk that may be busy. */
const MANY_MS = 60_000

describe('a restore of many files', { timeout: MANY_MS }, () => {
  it('writes while the plan is being made, and says how much there is to do when it knows', async () => {
    const { history, request } = await archive()
    const to = newTarget()
    const told: RestoreProgress[] = []
    history.beforeLast = async () => {
      await until('files before the plan is made', 30, () => imagesIn(to) >= 2 * IMAGES || undefined)
    }
    const report: RestoreReport = await restore(history, { ...request, to }, (progress) => told.push(progress))
    const files = STUDIES * IMAGES + 2
    expect(report).toMatchObject({ files, hardLinks: 1, missing: [], directories: STUDIES + 1, symlinks: STUDIES })
    expect(told[0]?.total).toBeUndefined()
    expect(told.at(-1)).toMatchObject({ files, total: { files, bytes: report.bytes } })
    const alone = newTarget()
    await restore(history, { ...request, to: alone, priority: 'newest' })
    expect(walkTree(to)).toEqual(walkTree(alone))
  })

  it('waits for the whole plan where the newest are to come first', async () => {
    const { history, request } = await archive()
    const to = newTarget()
    history.beforeLast = () => {
      expect(imagesIn(to)).toBe(0)
      return Promise.resolve()
    }
    expect(await restore(history, { ...request, to, priority: 'newest' })).toMatchObject({ missing: [], hardLinks: 1 })
  })

  it('is interrupted where the plan cannot be made to its end, and goes on with what is there', async () => {
    const { history, request } = await archive()
    const to = newTarget()
    history.beforeLast = async () => {
      await until('files before the plan is made', 30, () => imagesIn(to) >= IMAGES || undefined)
      throw new Error('the collector is gone')
    }
    await expect(restore(history, { ...request, to })).rejects.toThrow('the collector is gone')
    expect(readdirSync(to)).toContain(RESTORE_NOTE)
    const written = imagesIn(to)
    history.beforeLast = () => Promise.resolve()
    const report = await restore(history, { ...request, to })
    expect(report).toMatchObject({ missing: [], kept: written })
    expect(written).toBeGreaterThanOrEqual(IMAGES)
    const alone = newTarget()
    await restore(history, { ...request, to: alone })
    expect(walkTree(to)).toEqual(walkTree(alone))
  })

  it.skipIf(!canMount)('ends where nothing more can be written, whatever the plan still holds', async () => {
    const { history, request } = await archive(20_000)
    const to = join(makeFilesystem('ext4', 48 << 20).at, 'to')
    // Its disk is full long before that.
    history.beforeLast = async () => {
      await until('a full disk', 30, () => imagesIn(to) > IMAGES || undefined)
    }
    await expect(restore(history, { ...request, to })).rejects.toMatchObject({ code: 'space' })
  })
})
