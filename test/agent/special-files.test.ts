import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { libc } from '../../shared/libc.ts'
import { byteString, pathBuffer } from '../../shared/path.ts'
import { CaptureSite, known, versionOf } from '../support/capture-site.ts'

/** linux/posix_acl_xattr.h: version 2, then tag, permissions and id of each entry: the owner, user 1000, group, mask, others. */
const ACL = Buffer.from(
  ['02000000', '01000700ffffffff', '02000500e8030000', '04000500ffffffff', '10000500ffffffff', '20000000ffffffff'].join(''),
  'hex',
).toString('latin1')

const isRoot = process.getuid?.() === 0

describe('what is no file', () => {
  it('is captured with the xattrs and ACLs of a directory', async () => {
    const site = new CaptureSite()
    mkdirSync(site.file('d/e'), { recursive: true })
    for (const directory of ['d', 'd/e']) {
      libc?.setXattr(byteString(site.file(directory)), 'user.note', 'value\x00\xff')
      libc?.setXattr(byteString(site.file(directory)), 'system.posix_acl_default', ACL)
      libc?.setXattr(byteString(site.file(directory)), 'system.posix_acl_access', ACL)
      expect(versionOf(await site.look(directory))).toMatchObject({
        kind: 'directory',
        xattrs: [
          { name: 'system.posix_acl_access', value: ACL },
          { name: 'system.posix_acl_default', value: ACL },
          { name: 'user.note', value: 'value\x00\xff' },
        ],
      })
    }
  })

  it('is captured with the xattrs of the volume itself', async () => {
    const site = new CaptureSite()
    libc?.setXattr(byteString(site.directory), 'user.note', 'root')
    const version = versionOf(await site.look(''))
    expect(version).toMatchObject({ kind: 'directory', xattrs: [{ name: 'user.note', value: 'root' }] })
    expect((await site.look('', known(version))).outcome).toEqual({ kind: 'same' })
  })

  it('is a symlink with a target of any bytes, as long as it may be', async () => {
    const site = new CaptureSite()
    for (const target of ['\xff\xfe\n', `/${'x'.repeat(4094)}`, '../..//./a b']) {
      const name = `link${target.length}`
      symlinkSync(pathBuffer(target), site.file(name))
      expect(versionOf(await site.look(name))).toMatchObject({ kind: 'symlink', target })
    }
  })

  it.skipIf(!isRoot)('is a symlink with xattrs of its own, not those of its target', async () => {
    const site = new CaptureSite()
    mkdirSync(site.file('d'))
    libc?.setXattr(byteString(site.file('d')), 'trusted.whose', 'target')
    symlinkSync('d', site.file('link'))
    expect(versionOf(await site.look('link'))).toMatchObject({ kind: 'symlink', target: 'd', xattrs: [] })
    libc?.setXattr(byteString(site.file('link')), 'trusted.whose', 'link')
    expect(versionOf(await site.look('link')).xattrs).toEqual([{ name: 'trusted.whose', value: 'link' }])
  })

  it('is a fifo or a socket, which nobody opens', async () => {
    const site = new CaptureSite()
    expect(spawnSync('mkfifo', ['-m', '640', site.file('fifo')]).status).toBe(0)
    const server = createServer().listen(site.file('socket'))
    onTestFinished(() => void server.close())
    await once(server, 'listening')
    expect(versionOf(await site.look('fifo'))).toMatchObject({ kind: 'fifo', mode: 0o640, links: 1 })
    expect(versionOf(await site.look('socket'))).toMatchObject({ kind: 'socket' })
  })

  it.skipIf(!isRoot)('is a device with its number', async () => {
    const site = new CaptureSite()
    const S_IFCHR = 0o020000
    const S_IFBLK = 0o060000
    // A major number above 4095 and a minor above 255 need all the bits of makedev(3).
    const device = (300n << 8n) | 5n | (1n << 20n)
    libc?.makeNode(byteString(site.file('c')), S_IFCHR | 0o600, 0x0103n)
    libc?.makeNode(byteString(site.file('b')), S_IFBLK | 0o600, device)
    expect(versionOf(await site.look('c'))).toMatchObject({ kind: 'character-device', device: 0x0103n, mode: 0o600 })
    expect(versionOf(await site.look('b'))).toMatchObject({ kind: 'block-device', device, mode: 0o600 })
  })
})
