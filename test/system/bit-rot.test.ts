import { readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { AgentStatus } from '../../agent/status.ts'
import type { CollectorStatus } from '../../collector/status.ts'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { Site } from '../support/site.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const FILESYSTEM_BYTES = 64 << 20

describe.skipIf(!canMount)('a file that decays on the disk of the protected host', () => {
  it('is found by a deep scan, told everywhere, and never takes the place of what was captured', async () => {
    const filesystem = makeFilesystem('ext4', FILESYSTEM_BYTES)
    const [decayed, sound] = [join(filesystem.at, 'study.dcm'), join(filesystem.at, 'other.dcm')]
    const content = new Random(7).bytes(200_000)
    writeFileSync(decayed, content)
    writeFileSync(sound, new Random(8).bytes(200_000))
    const site = await Site.watching({ source: filesystem.at })
    const { installation, state } = site
    const status = (): AgentStatus => installation.json('agent', 'status', '--state', state) as AgentStatus
    const deep = (): unknown => installation.json('agent', 'scan', '--deep', '--state', state)
    deep()
    expect(status().volumes[0]).toMatchObject({ rotten: [] })
    const before = site.log().at(-1)

    filesystem.decay(decayed, content.subarray(0, 512))
    expect(readFileSync(decayed).equals(content)).toBe(false)
    deep()
    expect(status()).toMatchObject({
      alarms: [expect.stringContaining('the content of 1 file is not what was captured')],
      volumes: [{ rotten: [{ path: 'study.dcm' }], unreadable: [] }],
    })
    expect(installation.run('agent', 'status', '--state', state).stdout).toContain('images: study.dcm: decayed, found ')
    const toldReason = (): string | undefined =>
      (installation.json('status', '--data', installation.data) as CollectorStatus).agents[0]?.volumes[0]?.reason
    await until('the collector to be told', 20, () => (toldReason()?.includes('not what was captured') === true ? true : undefined))
    await site.wait()
    const puts = site.log({ since: before }).filter(({ op }) => op === 'put')
    expect(puts).toEqual([])
    expect(readFileSync(join(installation.replicaOf('pacs1'), 'study.dcm')).equals(content)).toBe(true)

    // It is known after a restart as well.
    await site.stop()
    site.start()
    await site.wait()
    expect(status().volumes[0]).toMatchObject({ rotten: [{ path: 'study.dcm' }] })

    // The good content, brought back from the history.
    const restored = site.restore('now', { path: 'study.dcm' })
    writeFileSync(decayed, readFileSync(join(restored, 'study.dcm')))
    await site.wait()
    expect(status()).toMatchObject({ alarms: [], volumes: [{ rotten: [] }] })
    await site.expectEqual()

    // Whoever says that the new content is right touches the file.
    filesystem.decay(sound, readFileSync(sound).subarray(0, 512))
    deep()
    expect(status().volumes[0]).toMatchObject({ rotten: [{ path: 'other.dcm' }] })
    utimesSync(sound, new Date(), new Date())
    await site.expectEqual()
    expect(status().volumes[0]).toMatchObject({ rotten: [] })
  })
})
