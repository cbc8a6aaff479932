import { chmodSync, closeSync, linkSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { describe, expect, it, onTestFinished } from 'vitest'
import { libc } from '../../shared/libc.ts'
import { byteString } from '../../shared/path.ts'
import { CaptureSite, contentOf, fileOf, joinedDigests, known, versionOf } from '../support/capture-site.ts'

function open(path: string, flags: string): number {
  const fd = openSync(path, flags)
  onTestFinished(() => closeSync(fd))
  return fd
}

describe('a pinned file', () => {
  it('is captured when its name is gone, with everything that it had', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'content')
    chmodSync(site.file('f'), 0o640)
    libc?.setXattr(byteString(site.file('f')), 'user.note', 'value')
    const pin = open(site.file('f'), 'r')
    rmSync(site.file('f'))
    const captured = await site.look('f', { pin })
    expect(fileOf(captured)).toMatchObject({
      consistency: 'stable',
      mode: 0o640,
      links: 1,
      xattrs: [{ name: 'user.note', value: 'value' }],
    })
    expect(contentOf(captured).toString()).toBe('content')
  })

  it('is the file of the descriptor, not the one that took its name', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'old')
    const pin = open(site.file('f'), 'r')
    writeFileSync(site.file('g'), 'new')
    renameSync(site.file('g'), site.file('f'))
    expect(contentOf(await site.look('f', { pin })).toString()).toBe('old')
    expect(contentOf(await site.look('f')).toString()).toBe('new')
  })

  it('is the same as before when only its name was lost, and not when it was written meanwhile', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'content')
    const version = fileOf(await site.look('f'))
    const options = { ...known(version), storedDigests: joinedDigests(version) }
    const pin = open(site.file('f'), 'r')
    expect((await site.look('f', { ...options, pin })).outcome).toEqual({ kind: 'same' })
    linkSync(site.file('f'), site.file('g'))
    rmSync(site.file('f'))
    expect((await site.look('f', { ...options, pin })).outcome).toEqual({ kind: 'same' })
    const other = { ...options, storedDigests: 'x'.repeat(32) }
    expect(fileOf(await site.look('f', { ...other, pin })).digest).toBe(version.digest)
    writeFileSync(site.file('g'), 'CONTENT')
    expect(contentOf(await site.look('f', { ...options, pin })).toString()).toBe('CONTENT')
  })

  it('waits for its writer only while it has a name that can be looked at later', async () => {
    const site = new CaptureSite()
    const writer = open(site.file('f'), 'w')
    writeSync(writer, 'half')
    const pin = open(site.file('f'), 'r')
    expect((await site.look('f', { pin })).outcome).toEqual({ kind: 'busy' })
    rmSync(site.file('f'))
    const captured = await site.look('f', { pin })
    expect(fileOf(captured).consistency).toBe('unverified')
    expect(contentOf(captured).toString()).toBe('half')
  })

  it('is not closed by its capture, and may be asked for by two jobs', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'content')
    const pin = open(site.file('f'), 'r')
    const both = await Promise.all([site.look('f', { pin }), site.look('f', { pin })])
    // The second lease of one file is granted as well as the first.
    for (const captured of both) expect(['version', 'busy']).toContain(captured.outcome.kind)
    expect(contentOf(await site.look('f', { pin })).toString()).toBe('content')
  })

  it('has content, or the path is looked at as ever', async () => {
    const site = new CaptureSite()
    const pin = open(site.directory, 'r')
    writeFileSync(site.file('f'), 'content')
    expect(versionOf(await site.look('', { pin }))).toMatchObject({ kind: 'directory' })
    expect((await site.look('absent', { pin })).outcome).toEqual({ kind: 'gone', topmost: 'absent' })
  })
})
