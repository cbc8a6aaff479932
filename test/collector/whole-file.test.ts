/** All that a file is, from the records to the disk: holes, special files, modes, times, long names; by restore and in the replica. */
import { execFileSync } from 'node:child_process'
import { chmodSync, closeSync, lstatSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { HoleWriter } from '../../collector/hole-writer.ts'
import { libc } from '../../shared/libc.ts'
import type { Version } from '../../shared/version.ts'
import { type Hole, withAdditions } from '../../shared/version-extensions.ts'
import { restored, site } from '../support/file-site.ts'
import { directoryVersion, type JournalWriter, symlinkVersion } from '../support/journal-writer.ts'
import { restoredHead } from '../support/running-replica.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'

const isRoot = process.getuid?.() === 0
const MiB = 1 << 20

/** Bytes on disk. */
function takenBy(file: string): number {
  return statSync(file).blocks * 512
}

/** The ranges of a file that are no holes, as the filesystem tells. */
function dataRanges(file: string): string {
  return execFileSync('python3', ['-c', RANGES, file], { encoding: 'utf8' }).trim()
}
/** Where the filesystem says that there is data. */
const RANGES = `
import os, sys
fd, at, found = os.open(sys.argv[1], os.O_RDONLY), 0, []
while True:
    try: start = os.lseek(fd, at, os.SEEK_DATA)
    except OSError: break
    at = os.lseek(fd, start, os.SEEK_HOLE)
    found.append(f"{start}-{at}")
print(" ".join(found))`

describe('a sparse file', () => {
  it('keeps its holes in a restore and in the replica, and every byte', async () => {
    const at = await site()
    const content = Buffer.alloc(8 * MiB)
    content.fill('data', 3 * MiB, 3 * MiB + 4096)
    const holes = [
      { offset: 0, length: 3 * MiB },
      { offset: 3 * MiB + 4096, length: content.length - 3 * MiB - 4096 },
    ]
    at.writer.put('image', withAdditions<Version>(at.writer.fileVersion(content, {}, 70_000), { holes }))
    at.writer.put(
      'all-hole',
      withAdditions<Version>(at.writer.fileVersion(Buffer.alloc(MiB), {}, 70_000), { holes: [{ offset: 0, length: MiB }] }),
    )
    at.writer.file('no-holes', Buffer.alloc(MiB), {}, 70_000)
    await at.follow()
    const { to } = await restored(at)
    for (const root of [to, at.root]) {
      expect(readFileSync(join(root, 'image')).equals(content)).toBe(true)
      expect(dataRanges(join(root, 'image'))).toBe(`${3 * MiB}-${3 * MiB + 4096}`)
      expect(statSync(join(root, 'all-hole'))).toMatchObject({ size: MiB, blocks: 0 })
      expect(takenBy(join(root, 'no-holes'))).toBeGreaterThanOrEqual(MiB)
    }
  })

  it('is written anew in the replica where only its holes changed', async () => {
    const at = await site()
    const version = at.writer.fileVersion(Buffer.alloc(MiB), {}, 70_000)
    at.writer.put('f', version)
    await at.follow()
    expect(takenBy(join(at.root, 'f'))).toBeGreaterThanOrEqual(MiB)
    at.writer.put('f', withAdditions<Version>(version, { holes: [{ offset: 0, length: MiB }] }))
    await at.follow()
    expect(takenBy(join(at.root, 'f'))).toBe(0)
    at.writer.put('f', version)
    await at.follow()
    expect(takenBy(join(at.root, 'f'))).toBeGreaterThanOrEqual(MiB)
  })

  it('of a terabyte of hole is written without a terabyte', () => {
    const size = 2 ** 40
    const file = join(scratchDirectory(), 'f')
    const fd = openSync(file, 'wx')
    onTestFinished(() => closeSync(fd))
    const writer = new HoleWriter(fd, [{ offset: 4, length: size - 4 }])
    writer.write(Buffer.from('data'))
    // Of the chunks, each of them zeros, one stands for all that would come here: what counts is what is written.
    let written = 4
    const zeros = Buffer.alloc(16 * MiB)
    for (; written < 256 * MiB; written += zeros.length) writer.write(zeros)
    writer.end()
    expect(statSync(file).size).toBe(written)
    expect(takenBy(file)).toBeLessThan(MiB)
  })

  it('has what it holds where a record wrongly names a hole', async () => {
    const at = await site()
    const content = Buffer.alloc(300_000)
    content[150_000] = 1
    const holes: Hole[] = [{ offset: 10, length: 299_980 }]
    at.writer.put('f', withAdditions<Version>(at.writer.fileVersion(content, {}, 7001), { holes }))
    at.writer.put('beyond', withAdditions<Version>(at.writer.fileVersion(Buffer.from('abc')), { holes: [{ offset: 0, length: 4 }] }))
    await at.follow()
    const { to } = await restored(at)
    for (const root of [to, at.root]) {
      expect(readFileSync(join(root, 'f')).equals(content)).toBe(true)
      expect(readFileSync(join(root, 'beyond'), 'utf8')).toBe('abc')
    }
  })
})

/** One of each, with a mode that no umask would leave. */
function special(writer: JournalWriter): void {
  const metadata = { uid: 1234, gid: 4321, ctimeNs: 0n, links: 1, xattrs: [] }
  const mtimeNs = -1_234_567_890_123_456_789n
  writer.put('fifo', { kind: 'fifo', ...metadata, mode: 0o622, mtimeNs, inode: 1n })
  writer.put('socket', { kind: 'socket', ...metadata, mode: 0o777, mtimeNs, inode: 2n })
  writer.put('tty', { kind: 'character-device', ...metadata, mode: 0o666, mtimeNs, inode: 3n, device: 0x500n })
  const xattrs = [{ name: 'trusted.note', value: 'x' }]
  writer.put('disk', { kind: 'block-device', ...metadata, mode: 0o660, mtimeNs, inode: 4n, device: 0xfff00012n, xattrs })
}

describe.skipIf(!isRoot)('a special file', () => {
  it('is recreated by restore --special with all that it was', async () => {
    const at = await site()
    special(at.writer)
    await at.follow()
    const { to, report } = await restored(at, { special: true })
    expect(report).toMatchObject({ others: 4, missing: [], shortcomings: [] })
    const kinds = ['fifo', 'socket', 'tty', 'disk'].map((name) => {
      const stat = lstatSync(join(to, name), { bigint: true })
      expect(stat).toMatchObject({ uid: 1234n, gid: 4321n, mtimeNs: -1_234_567_890_123_456_789n })
      return [
        stat.isFIFO(),
        stat.isSocket(),
        stat.isCharacterDevice(),
        stat.isBlockDevice(),
        Number(stat.mode & 0o7777n).toString(8),
        stat.rdev,
      ]
    })
    expect(kinds).toEqual([
      [true, false, false, false, '622', 0n],
      [false, true, false, false, '777', 0n],
      [false, false, true, false, '666', 0x500n],
      [false, false, false, true, '660', 0xfff00012n],
    ])
    expect(libc?.xattrs(join(to, 'disk'))).toEqual([{ name: 'trusted.note', value: 'x' }])
  })

  it('is listed with the way to have it where it was not asked for, also before anything is written', async () => {
    const at = await site()
    special(at.writer)
    await at.follow()
    for (const dryRun of [true, false]) {
      const { report, reasonOf } = await restored(at, { dryRun })
      expect(report.missing).toHaveLength(4)
      expect(reasonOf('tty')).toBe('a character-device is recorded; --special recreates it')
    }
    expect(readdirSync(at.root)).toEqual([])
  })

  it('is in the replica where it is configured, replaces what was there, and never blocks it', async () => {
    const at = await site({ special: true })
    at.writer.put('fifo', directoryVersion())
    at.writer.file('fifo/in-the-way', Buffer.from('x'))
    at.writer.put('tty', symlinkVersion('/etc/passwd'))
    await at.follow()
    const passwd = lstatSync('/etc/passwd')
    special(at.writer)
    await at.follow()
    expect(lstatSync(join(at.root, 'fifo')).isFIFO()).toBe(true)
    expect(lstatSync(join(at.root, 'tty')).isCharacterDevice()).toBe(true)
    expect(lstatSync('/etc/passwd')).toMatchObject({ mode: passwd.mode, uid: passwd.uid })
    // A fifo that becomes a file: content and metadata are not written through the old one.
    at.writer.file('fifo', Buffer.from('a file now'))
    await at.follow()
    expect(readFileSync(join(at.root, 'fifo'), 'utf8')).toBe('a file now')
    expect(walkTree(at.root)).toEqual(await restoredHead(at.store, at.writer, true))
  })

  it('is missing with a reason where it cannot be made', async () => {
    const at = await site()
    at.writer.put('odd', {
      kind: 'block-device',
      mode: 0o600,
      uid: 0,
      gid: 0,
      mtimeNs: 0n,
      ctimeNs: 0n,
      inode: 1n,
      links: 1,
      xattrs: [],
      device: 1n,
    })
    at.writer.file('after', Buffer.from('x'))
    await at.follow()
    vi.spyOn(libc ?? { makeNode: () => {} }, 'makeNode').mockImplementation(() => {
      throw Object.assign(new Error('EPERM: mknod'), { code: 'EPERM' })
    })
    onTestFinished(() => {
      vi.restoreAllMocks()
    })
    const { to, reasonOf } = await restored(at, { special: true })
    expect(reasonOf('odd')).toBe('a block-device cannot be made here (EPERM); only root may make devices, and not in every container')
    expect(readdirSync(to)).toEqual(['after'])
  })
})

describe.skipIf(!isRoot)('what lets a file act for others', () => {
  it('is restored when asked for, and never in the replica', async () => {
    const at = await site()
    // cap_net_raw=ep in the kernel's encoding (VFS_CAP_REVISION_2).
    const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex').toString('latin1')
    at.writer.file('setuid', Buffer.from('#!'), { mode: 0o6755, uid: 1234 })
    const xattrs = [
      { name: 'security.capability', value: capability },
      { name: 'security.note', value: 'a label' },
    ]
    at.writer.file('capable', Buffer.from('#!'), { mode: 0o755, xattrs })
    at.writer.put('directory', directoryVersion({ mode: 0o2775 }))
    await at.follow()
    const plain = await restored(at)
    for (const root of [plain.to, at.root]) {
      expect(statSync(join(root, 'setuid')).mode & 0o7777).toBe(0o755)
      expect(libc?.xattrs(join(root, 'capable'))).toEqual([])
      expect(statSync(join(root, 'directory')).mode & 0o7777).toBe(0o2775)
    }
    const { to } = await restored(at, { setuid: true })
    expect(statSync(join(to, 'setuid')).mode & 0o7777).toBe(0o6755)
    expect(libc?.xattrs(join(to, 'capable'))).toEqual(xattrs)
    // Also where only metadata changes.
    at.writer.file('setuid', Buffer.from('#!'), { mode: 0o4711 })
    await at.follow()
    expect(statSync(join(at.root, 'setuid')).mode & 0o7777).toBe(0o711)
  })
})

describe('what is extreme', () => {
  it('comes through: long names and paths, long targets of any bytes, times before 1970', async () => {
    const at = await site()
    const name = '\xff'.repeat(255)
    let deep = 'n'.repeat(255)
    at.writer.put(deep, directoryVersion())
    while (deep.length < 3700) {
      deep += `/${'\xe4'.repeat(255)}`
      at.writer.put(deep, directoryVersion({ mtimeNs: -1n }))
    }
    const file = `${deep}/${'f'.repeat(4095 - deep.length - 1 > 255 ? 255 : 4095 - deep.length - 1)}`
    at.writer.file(file, Buffer.from('at the bottom'), { mtimeNs: -86_400_000_000_001n })
    at.writer.file(name, Buffer.from('a name of 255 bytes'), { mtimeNs: -1n })
    const target = Buffer.from(Array.from({ length: 4095 }, (_, i) => 1 + (i % 255))).toString('latin1')
    at.writer.put('link', symlinkVersion(target))
    at.writer.put('old', { ...symlinkVersion('x'), mtimeNs: -999_999_999n })
    at.writer.file('future', Buffer.from('x'), { mtimeNs: 4_102_444_800_123_456_789n })
    await at.follow()
    expect(file.length).toBeGreaterThan(3900)
    const { to, report } = await restored(at)
    expect(report.missing).toEqual([])
    expect(report.shortcomings).toEqual([])
    // No path of that length can be given to the system as one: the tree is walked by python from descriptor to descriptor.
    for (const root of [to, at.root]) expect(contentBelow(root, file)).toBe('at the bottom')
    for (const root of [to, at.root]) {
      const place = (path: string): Buffer => Buffer.from(`${root}/${path}`, 'latin1')
      expect(lstatSync(place(name), { bigint: true }).mtimeNs).toBe(-1n)
      expect(lstatSync(place('old'), { bigint: true }).mtimeNs).toBe(-999_999_999n)
      expect(lstatSync(place('future'), { bigint: true }).mtimeNs).toBe(4_102_444_800_123_456_789n)
      expect(lstatSync(place('link')).size).toBe(4095)
    }
    // And goes again; here by a program that walks from descriptor to descriptor too.
    execFileSync('rm', ['-r', to])
    at.writer.remove('n'.repeat(255))
    at.writer.rename(name, 'short')
    await at.follow()
    expect(readdirSync(at.root).sort()).toEqual(['future', 'link', 'old', 'short'])
  })

  it('is as deep as a path can be', async () => {
    const at = await site()
    let path = 'a'
    at.writer.put(path, directoryVersion())
    while (path.length < 1000) {
      path += '/a'
      at.writer.put(path, directoryVersion())
    }
    at.writer.file(`${path}/f`, Buffer.from('deep'))
    await at.follow()
    const { to } = await restored(at)
    for (const root of [to, at.root]) expect(readFileSync(join(root, path, 'f'), 'utf8')).toBe('deep')
    at.writer.remove('a')
    await at.follow()
    expect(readdirSync(at.root)).toEqual([])
  })

  it('is told apart by case only, also when the case changes', async () => {
    const at = await site()
    for (const name of ['Scan.dcm', 'scan.dcm', 'SCAN.DCM']) at.writer.file(name, Buffer.from(name))
    await at.follow()
    at.writer.remove('SCAN.DCM')
    at.writer.rename('Scan.dcm', 'SCAN.dcm')
    await at.follow()
    expect(readdirSync(at.root).sort()).toEqual(['SCAN.dcm', 'scan.dcm'])
    expect(readFileSync(join(at.root, 'SCAN.dcm'), 'utf8')).toBe('Scan.dcm')
    expect(walkTree(at.root)).toEqual(await restoredHead(at.store, at.writer))
  })

  it('replaces a file that nobody may write', async () => {
    const at = await site()
    at.writer.file('f', Buffer.from('one'), { mode: 0o000 })
    await at.follow()
    chmodSync(join(at.root, 'f'), 0o000)
    at.writer.file('f', Buffer.from('two'), { mode: 0o444 })
    await at.follow()
    expect(readFileSync(join(at.root, 'f'), 'utf8')).toBe('two')
  })
})

function contentBelow(root: string, path: string): string {
  const program = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
*above, name = bytes.fromhex(sys.argv[2]).split(b"/")
for part in above: fd = os.open(part, os.O_RDONLY, dir_fd=fd)
sys.stdout.write(os.read(os.open(name, os.O_RDONLY, dir_fd=fd), 100).decode())`
  return execFileSync('python3', ['-c', program, root, Buffer.from(path, 'latin1').toString('hex')], { encoding: 'utf8' })
}
