import { linkSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readEpoch } from '../../agent/epoch.ts'
import { isSameRoot, VolumeRoots } from '../../agent/volume-roots.ts'
import { label, relativePath } from '../../shared/path.ts'
import type { JournalRecord } from '../../shared/record.ts'
import { LoneAgent } from '../support/lone-agent.ts'
import { scratchDirectory } from '../support/scratch.ts'

/** What a record says, in a few words. */
function told(record: JournalRecord): string {
  switch (record.kind) {
    case 'put':
      return record.version.kind === 'file' ? `put ${record.path} (${record.version.size})` : `put ${record.path}/`
    case 'remove':
      return `remove ${record.path}`
    case 'rename':
      return `rename ${record.path} -> ${record.to}`
    case 'gap':
      return `gap: ${record.cause}`
    case 'epoch':
      return `epoch ${record.epoch}: ${record.reason}`
    default:
      return record.kind
  }
}

async function journalOf(agent: LoneAgent): Promise<string[]> {
  await agent.stop()
  return (await agent.records()).map(told)
}

async function headReaches(agent: LoneAgent, seq: number): Promise<void> {
  await expect.poll(() => agent.status?.headSeq, { timeout: 10_000 }).toBeGreaterThanOrEqual(seq)
}

describe('an agent without its collector', () => {
  it('journals what it finds, directories first, and then that it is all', async () => {
    const agent = new LoneAgent()
    agent.write('a/b/f', 'content')
    agent.write('z', 'x')
    await agent.startAndWatch()
    const records = await journalOf(agent)
    expect(records.slice(0, 3)).toEqual(['epoch 1: first', 'volume', 'put /'])
    expect(records.toSorted()).toEqual(
      ['epoch 1: first', 'volume', 'put /', 'put a/', 'put a/b/', 'put a/b/f (7)', 'put z (1)', 'sweep', 'coverage'].toSorted(),
    )
    expect(records.indexOf('put a/b/')).toBeLessThan(records.indexOf('put a/b/f (7)'))
    expect(records.slice(-2)).toEqual(['sweep', 'coverage'])
  })

  it('keeps every version of what changes, in the spool', async () => {
    const agent = new LoneAgent()
    await agent.startAndWatch()
    const before = agent.status?.headSeq ?? 0
    for (const content of ['one', 'three', 'seventy']) {
      const head = agent.status?.headSeq ?? 0
      agent.write('f', content)
      agent.tell('f')
      await headReaches(agent, head + 1)
    }
    expect(agent.status?.spoolBytes).toBeGreaterThan(0)
    const records = (await journalOf(agent)).slice(before)
    expect(records.filter((record) => record.startsWith('put f'))).toEqual(['put f (3)', 'put f (5)', 'put f (7)'])
  })

  it('records a removed directory once, and the times of the one above', async () => {
    const agent = new LoneAgent()
    agent.write('a/b/f', 'content')
    agent.write('a/b/g', 'content')
    await agent.startAndWatch()
    const before = agent.status?.headSeq ?? 0
    rmSync(join(agent.volume, 'a/b'), { recursive: true })
    agent.tell('a/b/f', 'a/b/g', 'a/b')
    await headReaches(agent, before + 2)
    expect((await journalOf(agent)).slice(before)).toEqual(['remove a/b', 'put a/'])
  })

  it('looks at the other names of a file whose links changed', async () => {
    const agent = new LoneAgent()
    agent.write('f', 'content')
    await agent.startAndWatch()
    const before = agent.status?.headSeq ?? 0
    linkSync(join(agent.volume, 'f'), join(agent.volume, 'link'))
    agent.tell('link')
    await headReaches(agent, before + 3)
    expect((await journalOf(agent)).slice(before).toSorted()).toEqual(['put /', 'put f (7)', 'put link (7)'])
  })

  it('finds what events did not tell, by a scan, and counts it', async () => {
    const agent = new LoneAgent()
    agent.everySeconds = 1
    await agent.startAndWatch()
    agent.write('quiet', 'content')
    await expect.poll(() => agent.status?.volumes[0]?.unannounced, { timeout: 10_000 }).toBe(2)
    expect(await journalOf(agent)).toContain('put quiet (7)')
  })

  it('goes on where it stopped, finds what happened meanwhile, and says for how long it was away', async () => {
    const agent = new LoneAgent()
    agent.write('f', 'content')
    agent.write('old', 'x')
    await agent.startAndWatch()
    await agent.stop()
    const before = (await agent.records()).length
    agent.write('f', 'changed')
    rmSync(join(agent.volume, 'old'))
    await agent.startAndWatch()
    const records = (await journalOf(agent)).slice(before)
    expect(records.toSorted()).toEqual(['gap: the agent was not running', 'put /', 'put f (7)', 'remove old'])
    expect(records.at(-1)).toBe('gap: the agent was not running')
  })

  it('does not protect its own state', async () => {
    const agent = new LoneAgent()
    renameSync(agent.stateDir, join(agent.volume, 'state'))
    const inside = new LoneAgent()
    Object.assign(inside, { stateDir: join(agent.volume, 'state'), volume: agent.volume })
    await inside.startAndWatch()
    inside.tell('state/log/LOG')
    expect((await journalOf(inside)).filter((record) => record.includes('state'))).toEqual([])
  })
})

describe('a directory that was moved', () => {
  it('while nobody watched is a rename: what is in it is neither read nor sent again', async () => {
    const agent = new LoneAgent()
    for (const name of ['d/f', 'd/sub/g']) agent.write(name, 'content')
    await agent.startAndWatch()
    const before = (await journalOf(agent)).length
    renameSync(join(agent.volume, 'd'), join(agent.volume, 'e'))
    await agent.startAndWatch()
    const records = (await journalOf(agent)).slice(before)
    expect(records).toContain('rename d -> e')
    expect(records.filter((record) => record.includes('f (') || record.includes('g (') || record.startsWith('remove'))).toEqual([])
  })

  it('is a rename by the word of an event, and what changed in it meanwhile is found below the new name', async () => {
    const agent = new LoneAgent()
    for (const name of ['d/f', 'd/g']) agent.write(name, 'content')
    await agent.startAndWatch()
    agent.write('d/f', 'changed')
    renameSync(join(agent.volume, 'd'), join(agent.volume, 'e'))
    agent.say(
      { kind: 'dirty', path: relativePath('d/f') },
      { kind: 'dirty', path: relativePath('d'), isEntry: true },
      { kind: 'dirty', path: relativePath('e'), isEntry: true },
      { kind: 'renamed', path: relativePath('d'), to: relativePath('e') },
    )
    await expect.poll(() => agent.status?.dirty, { timeout: 10_000 }).toBe(0)
    const records = await journalOf(agent)
    const at = records.indexOf('rename d -> e')
    expect(at).toBeGreaterThan(0)
    expect(records.slice(at).filter((record) => record.startsWith('put e/'))).toEqual(expect.arrayContaining(['put e/f (7)']))
    expect(records.filter((record) => record.startsWith('remove'))).toEqual([])
  })

  it('is not taken for one that only has its inode', async () => {
    const agent = new LoneAgent()
    agent.write('d/f', 'content')
    await agent.startAndWatch()
    const before = (await journalOf(agent)).length
    renameSync(join(agent.volume, 'd'), join(agent.volume, 'e'))
    // Its names are others: it cannot be known that it holds what the one before held.
    agent.write('e/new', 'content')
    await agent.startAndWatch()
    const records = (await journalOf(agent)).slice(before)
    expect(records).not.toContain('rename d -> e')
    expect(records).toEqual(expect.arrayContaining(['remove d', 'put e/f (7)', 'put e/new (7)']))
  })
})

describe('a volume that disappears', () => {
  it('is paused, not emptied, and repaired when it is back', async () => {
    const agent = new LoneAgent()
    agent.write('f', 'content')
    await agent.startAndWatch()
    const before = agent.status?.headSeq ?? 0
    renameSync(agent.volume, `${agent.volume}.away`)
    agent.tell('f', '')
    await agent.is('paused')
    mkdirSync(agent.volume)
    agent.tell('f', '')
    await expect.poll(() => agent.status?.volumes[0]?.reason, { timeout: 10_000 }).toMatch(/another directory than before/)
    expect(agent.status?.alarms).toHaveLength(1)
    rmSync(agent.volume, { recursive: true })
    renameSync(`${agent.volume}.away`, agent.volume)
    await agent.is('watching')
    const records = (await journalOf(agent)).slice(before)
    expect(records.at(-1)).toBe('gap: the volume was not watched')
    expect(records.filter((record) => record.startsWith('remove'))).toEqual([])
  })

  it('is protected as another directory only when that is confirmed', async () => {
    const agent = new LoneAgent()
    agent.write('f', 'content')
    await agent.startAndWatch()
    await agent.stop()
    renameSync(agent.volume, `${agent.volume}.old`)
    agent.write('g', 'other')
    agent.start()
    await expect.poll(() => agent.status?.volumes[0]?.reason, { timeout: 10_000 }).toMatch(/another directory than before/)
    agent.acceptRoot = /acceptRoot = "([\d-]+)"/.exec(agent.status?.volumes[0]?.reason ?? '')?.[1]
    await agent.stop()
    expect((await agent.records()).map(told)).not.toContain('remove f')
    await agent.startAndWatch()
    const records = await journalOf(agent)
    expect(records).toContain('remove f')
    expect(records).toContain('put g (5)')
  })
})

describe('S09 a volume that is suddenly empty', () => {
  it('is paused until it holds something again, or that is confirmed', async () => {
    const agent = new LoneAgent()
    agent.write('f', 'content')
    await agent.startAndWatch()
    await agent.stop()
    rmSync(join(agent.volume, 'f'))
    agent.start()
    await expect.poll(() => agent.status?.volumes[0]?.reason, { timeout: 10_000 }).toMatch(/is empty, and was not/)
    await agent.stop()
    expect((await agent.records()).map(told)).not.toContain('remove f')
    agent.acceptEmpty = true
    await agent.startAndWatch()
    expect(await journalOf(agent)).toContain('remove f')
  })

  it('is told from the one that was there by when it was made, though the inode is the same', () => {
    const file = join(scratchDirectory(), 'roots.json')
    const volume = label('images', 'volume')
    new VolumeRoots(file).note(volume, { inode: 2n, birthNs: 1000n })
    const noted = new VolumeRoots(file).of(volume)
    expect(isSameRoot(noted, { inode: 2n, birthNs: 1000n })).toBe(true)
    expect(isSameRoot(noted, { inode: 2n, birthNs: 1001n })).toBe(false)
    expect(isSameRoot(noted, { inode: 3n, birthNs: 1000n })).toBe(false)
    // Not every filesystem keeps it.
    expect(isSameRoot(noted, { inode: 2n, birthNs: 0n })).toBe(true)
  })
})

describe('a new epoch', () => {
  it('begins when the journal is damaged, and puts everything again', async () => {
    const agent = new LoneAgent()
    agent.write('f', 'content')
    await agent.startAndWatch()
    await agent.stop()
    for (const name of readdirSync(join(agent.stateDir, 'log')))
      if (name.endsWith('.log')) writeFileSync(join(agent.stateDir, 'log', name), 'rubbish')
    await agent.startAndWatch()
    const records = await journalOf(agent)
    expect(records[0]).toBe('epoch 2: damaged')
    expect(records).toContain('put f (7)')
    expect(records.slice(-2)).toEqual(['sweep', 'gap: a new epoch began (damaged)'])
  })

  it('begins when the file that names the epoch is lost', async () => {
    const agent = new LoneAgent()
    await agent.startAndWatch()
    await agent.stop()
    rmSync(join(agent.stateDir, 'epoch.json'))
    await agent.startAndWatch()
    expect(await journalOf(agent)).toContain('epoch 2: state-lost')
    expect(readEpoch(join(agent.stateDir, 'epoch.json'))).toMatchObject({ epoch: 2 })
  })

  it('does not begin when only the state is lost: it is folded from the journal again', async () => {
    const agent = new LoneAgent()
    agent.write('f', 'content')
    await agent.startAndWatch()
    await agent.stop()
    rmSync(join(agent.stateDir, 'state'), { recursive: true })
    await agent.startAndWatch()
    const records = await journalOf(agent)
    expect(records.filter((record) => record.startsWith('epoch'))).toEqual(['epoch 1: first'])
    expect(records.filter((record) => record === 'put f (7)')).toHaveLength(1)
  })
})

describe('a spool without room', () => {
  it('is a gap and an alarm, and metadata go on', async () => {
    const agent = new LoneAgent()
    agent.quotaBytes = 0
    agent.write('f', 'content')
    await agent.startAndWatch()
    agent.write('g', 'content')
    agent.tell('g')
    await expect.poll(() => agent.status?.volumes[0]?.gaps, { timeout: 10_000 }).toBe(1)
    expect(agent.status?.alarms).toHaveLength(1)
    const records = await journalOf(agent)
    expect(records.filter((record) => record.startsWith('gap'))).toContain('gap: the spool had no room: content was not copied')
    expect(records).toContain('put g (7)')
  })
})
