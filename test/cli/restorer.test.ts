/** `restorer`, and what is said of a certificate that ends or has ended. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { enrollRestorer } from '../../collector/restorer-identity.ts'
import type { RestorerEnd } from '../../collector/restorers.ts'
import type { CollectorStatus } from '../../collector/status.ts'
import { FakeHistory, serveHistory } from '../support/fake-history.ts'
import { answer, type Ended, launch } from '../support/launcher.ts'
import { ReadingPort } from '../support/reading-port.ts'
import { scratchDirectory } from '../support/scratch.ts'

const DAY_MS = 24 * 3_600_000
const USAGE = 2
const NOT_TRUSTED = 6

/** A restorer whose certificate is good for so long, and what `ls` says to it. */
async function listedBy(validMs: number): Promise<Ended> {
  const port = await ReadingPort.open()
  port.writer.file('image', Buffer.from('content'))
  await port.send()
  const identity = join(scratchDirectory(), 'identity')
  await enrollRestorer(identity, { collector: port.url, token: port.token('radiology', ['pacs1'], validMs), name: 'radiology' })
  return launch('ls', 'pacs1:images', '--collector', port.url, '--identity', identity)
}

describe('the certificate of a restorer', () => {
  it('is not spoken of while it is good', async () => {
    const { status, stdout, stderr } = await listedBy(90 * DAY_MS)
    expect(status).toBe(0)
    expect(stdout).toContain('image')
    expect(stderr).not.toContain('certificate')
  })

  it('is told to end by every command that reads with it, with what makes another one', async () => {
    const { status, stderr } = await listedBy(600_000)
    expect(status).toBe(0)
    expect(stderr).toMatch(
      /warning: the certificate of the restorer radiology ends in \d+ min.*; a new one: `pacsimile restorer token radiology` at the collector/,
    )
    expect(stderr).toMatch(/`pacsimile restorer enroll radiology --collector \S+ --token TOKEN`/)
  })

  it('that has ended is an error, which says when and what to do', async () => {
    const { status, stderr } = await listedBy(1)
    expect(status).toBe(NOT_TRUSTED)
    expect(stderr).toMatch(
      /The certificate of the restorer radiology ended at \d{4}-\d\d-\d\dT[\d:.]+Z, .* ago; a new one: `pacsimile restorer token radiology`/,
    )
  })
})

describe('restorer token', () => {
  it('without --allow is for another certificate of the same rights and length', async () => {
    const port = await ReadingPort.open()
    const at = ['--data', port.dataDir]
    const place = { collector: port.url, name: 'radiology' }
    const first = (await answer('restorer', 'token', 'radiology', '--allow', 'pacs1:images', '--valid', '7d', ...at)) as { token: string }
    await enrollRestorer(join(scratchDirectory(), 'first'), { ...place, token: first.token })
    const second = (await answer('restorer', 'token', 'radiology', ...at)) as { token: string; allowed: string[] }
    expect(second.allowed).toEqual(['pacs1:images'])
    const { allowed, expires } = await enrollRestorer(join(scratchDirectory(), 'second'), { ...place, token: second.token })
    expect(allowed).toEqual(['pacs1:images'])
    expect(Math.abs(Date.parse(expires) - Date.now() - 7 * DAY_MS)).toBeLessThan(DAY_MS / 2)
  })

  it('asks what a restorer may read that there is none of, or that was revoked', async () => {
    const port = await ReadingPort.open()
    const at = ['--data', port.dataDir]
    const unknown = await launch('restorer', 'token', 'radiology', ...at)
    expect(unknown).toMatchObject({ status: USAGE, stderr: expect.stringContaining('--allow AGENT') as string })
    await port.restorer('radiology')
    port.identity.revokeRestorer('radiology')
    expect((await launch('restorer', 'token', 'radiology', ...at)).status).toBe(USAGE)
  })
})

describe('at the collector', () => {
  it('restorer list says when each ends, and names what makes a new one where that is soon', async () => {
    const port = await ReadingPort.open()
    await port.restorer('fresh', ['all'], 90 * DAY_MS + 3_600_000)
    await port.restorer('past', ['all'], 1)
    const { stdout, stderr } = await launch('restorer', 'list', '--data', port.dataDir)
    expect(stdout).toMatch(/^fresh +good +.* \(in 90 d.*\)/m)
    expect(stdout).toMatch(/^past +expired +.* ago\)/m)
    expect(stderr).toContain('A new certificate for past: pacsimile restorer token past\n')
    expect(stderr).not.toContain('for fresh')
  })

  it('the ends are known of all that were not revoked, and a damaged file hides no other', async () => {
    const port = await ReadingPort.open()
    for (const name of ['gone', 'radiology', 'spoilt']) await port.restorer(name, ['all'], 90 * DAY_MS)
    port.identity.revokeRestorer('gone')
    writeFileSync(join(port.dataDir, 'restorers', 'spoilt.json'), '{')
    const { restorers } = port.identity
    const stateAfter = (days: number): string[] => restorers.ends(Date.now() + days * DAY_MS).map(({ name, state }) => `${name} ${state}`)
    expect(stateAfter(0)).toEqual(['radiology good', 'spoilt damaged'])
    expect(stateAfter(61)).toEqual(['radiology ending', 'spoilt damaged'])
    expect(stateAfter(91)).toEqual(['radiology expired', 'spoilt damaged'])
  })

  it('status names those for whom something is to be done', async () => {
    const restorers: RestorerEnd[] = [
      { name: 'fresh', state: 'good', expiresMs: Date.now() + 80 * DAY_MS },
      { name: 'soon', state: 'ending', expiresMs: Date.now() + 3.5 * DAY_MS },
      { name: 'past', state: 'expired', expiresMs: Date.now() - 3.5 * DAY_MS },
      { name: 'spoilt', state: 'damaged' },
    ]
    const about = { repository: 'r', dataDir: '/d', listen: 'h:1', startedMs: 1, failure: undefined, rebuilding: undefined, damage: 0 }
    const status: CollectorStatus = { ...about, scrub: undefined, copies: [], restorers, agents: [] }
    const data = await serveHistory(new FakeHistory(), { status: () => Promise.resolve(status) })
    const { stdout } = await launch('status', '--data', data)
    expect(stdout).toMatch(/^restorer soon: its certificate ends in 3 d 1[12] h; `pacsimile restorer token soon` is the way to a new one$/m)
    expect(stdout).toMatch(/^restorer past: its certificate ended 3 d 12 h ago; .*`restorer revoke past` gives it up$/m)
    expect(stdout).toMatch(/^restorer spoilt: its file is damaged/m)
    expect(stdout).not.toContain('restorer fresh')
  })
})
