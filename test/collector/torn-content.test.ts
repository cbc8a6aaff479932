/** Content that was torn when it was captured: in a restore, and in the replica. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { millisecondsOf } from '../../shared/clock.ts'
import { restored, site } from '../support/file-site.ts'
import { directoryVersion } from '../support/journal-writer.ts'

describe('torn content', () => {
  it('is missing from a restore, with the moment of the last whole version, unless it is asked for', async () => {
    const at = await site()
    const whole = at.writer.file('db', Buffer.from('whole'))
    at.writer.file('db', Buffer.from('torn one'), { consistency: 'torn' })
    at.writer.file('db', Buffer.from('torn two'), { consistency: 'torn' })
    at.writer.file('fresh', Buffer.from('never whole'), { consistency: 'torn' })
    at.writer.file('other', Buffer.from('other'))
    await at.follow()
    for (const dryRun of [true, false]) {
      const { report, reasonOf } = await restored(at, { dryRun })
      expect(report.missing.map(({ path }) => path)).toEqual(['db', 'fresh'])
      const reason = reasonOf('db') ?? ''
      expect(reason).toContain('its content was torn when captured (parts of several moments); --torn restores it all the same')
      expect(reason).toContain(new Date(millisecondsOf(whole.record.time)).toISOString())
      expect(reasonOf('fresh')).not.toContain('last whole')
    }
    const { to } = await restored(at, { torn: true })
    expect(readFileSync(join(to, 'db'), 'utf8')).toBe('torn two')
    expect(readFileSync(join(to, 'fresh'), 'utf8')).toBe('never whole')
  })

  it('does not take the place of whole content in the replica, and is there where nothing whole is', async () => {
    const at = await site()
    const content = (name: string): string => readFileSync(join(at.root, name), 'utf8')
    at.writer.file('db', Buffer.from('whole'))
    at.writer.file('fresh', Buffer.from('never whole'), { consistency: 'torn' })
    await at.follow()
    at.writer.file('db', Buffer.from('torn'), { consistency: 'torn' })
    await at.follow()
    expect([content('db'), content('fresh')]).toEqual(['whole', 'never whole'])
    // The same bytes, now known to be whole: nothing but the content tells that they are not there yet.
    at.writer.file('db', Buffer.from('torn'))
    await at.follow()
    expect(content('db')).toBe('torn')
    at.writer.remove('db')
    at.writer.file('db', Buffer.from('new and torn'), { consistency: 'torn' })
    await at.follow()
    expect(content('db')).toBe('new and torn')
  })

  it('is not passed on by a hard link or a rename', async () => {
    const at = await site()
    const linked = { inode: 4711n, links: 2 }
    at.writer.put('d', directoryVersion())
    at.writer.file('d/db', Buffer.from('whole'))
    at.writer.file('a', Buffer.from('before'), linked)
    await at.follow()
    at.writer.file('d/db', Buffer.from('x'), { consistency: 'torn' })
    at.writer.file('a', Buffer.from('same'), { ...linked, consistency: 'torn' })
    await at.follow()
    // Equal to the torn one in all but how sure it is; and a name of the same inode.
    at.writer.file('b', Buffer.from('same'), linked)
    at.writer.rename('d', 'e')
    await at.follow()
    expect(readFileSync(join(at.root, 'b'), 'utf8')).toBe('same')
    at.writer.file('e/db', Buffer.from('x'))
    await at.follow()
    expect(readFileSync(join(at.root, 'e/db'), 'utf8')).toBe('x')
  })
})
