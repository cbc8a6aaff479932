import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { dicomFile as sampleFile } from '../../collector/cli/dicom-sample.ts'
import { digestOf } from '../../shared/digest.ts'
import { libc } from '../../shared/libc.ts'
import { byteString, pathBuffer, type RelativePath, relativePath } from '../../shared/path.ts'
import { storedForm } from '../../shared/stored-form.ts'
import { CaptureSite, contentOf, fileOf, known, versionOf } from '../support/capture-site.ts'
import { scratchDirectory } from '../support/scratch.ts'

const IMAGE = {
  patientName: 'Mustermann^Erika',
  patientId: 'P1',
  studyUid: '1.2.3',
  seriesUid: '1.2.3.1',
  sopUid: '1.2.3.1.1',
  modality: 'CT',
  instance: 1,
  seed: 1,
}

describe('a look at a file', () => {
  it('captures content, metadata and xattrs in a stable state', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'content')
    chmodSync(site.file('f'), 0o640)
    libc?.setXattr(byteString(site.file('f')), 'user.note', 'value\xff')
    linkSync(site.file('f'), site.file('other'))
    const captured = await site.look('f')
    const stats = lstatSync(site.file('f'), { bigint: true })
    expect(fileOf(captured)).toMatchObject({
      consistency: 'stable',
      size: 7,
      digest: digestOf(Buffer.from('content')),
      mode: 0o640,
      links: 2,
      inode: stats.ino,
      mtimeNs: stats.mtimeNs,
      ctimeNs: stats.ctimeNs,
      xattrs: [{ name: 'user.note', value: 'value\xff' }],
    })
    expect(contentOf(captured).toString()).toBe('content')
  })

  it('finds an empty file without chunks', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('empty'), '')
    expect(fileOf(await site.look('empty'))).toMatchObject({ size: 0, chunks: [], digest: digestOf(Buffer.alloc(0)) })
  })

  it('says that nothing changed without reading, and reads when only a time did', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'content')
    const first = versionOf(await site.look('f'))
    expect((await site.look('f', known(first))).outcome).toEqual({ kind: 'same' })
    chmodSync(site.file('f'), 0o600)
    expect(versionOf(await site.look('f', known(first)))).toMatchObject({ mode: 0o600 })
  })

  it('finds it busy while it is open for writing, and takes it as it is when told to', async () => {
    const site = new CaptureSite()
    const fd = openSync(site.file('f'), 'w')
    onTestFinished(() => closeSync(fd))
    writeSync(fd, 'half')
    expect((await site.look('f')).outcome).toEqual({ kind: 'busy' })
    const captured = await site.look('f', { asIs: true })
    expect(fileOf(captured)).toMatchObject({ consistency: 'unverified', size: 4 })
    const again = await site.look('f', known(versionOf(captured)))
    expect(again.outcome).toEqual({ kind: 'still-open' })
  })

  it('captures an unverified file anew once nobody writes it', async () => {
    const site = new CaptureSite()
    const fd = openSync(site.file('f'), 'w')
    writeSync(fd, 'half')
    const unverified = versionOf(await site.look('f', { asIs: true }))
    closeSync(fd)
    expect(fileOf(await site.look('f', known(unverified)))).toMatchObject({ consistency: 'stable' })
  })

  it('does not ship what was shipped with the version before', async () => {
    const site = new CaptureSite()
    const content = Buffer.alloc(3_000_000, 1).map((_, i) => (i * i) >> 3)
    writeFileSync(site.file('f'), content)
    const first = await site.look('f')
    const { chunks } = fileOf(first)
    expect(chunks.length).toBeGreaterThan(1)
    writeFileSync(site.file('f'), Buffer.concat([content, Buffer.from('more')]))
    const second = await site.look('f', { storedDigests: chunks.map(({ digest }) => digest).join('') })
    expect([...second.chunks.keys()].every((digest) => !chunks.some((chunk) => chunk.digest === digest))).toBe(true)
    expect(second.chunks.size).toBe(1)
  })

  it('streams a file that is larger than any buffer, and reads its chunks again', async () => {
    const site = new CaptureSite()
    const fd = openSync(site.file('large'), 'w')
    const piece = Buffer.alloc(1 << 20)
    for (let i = 0; i < 40; i++) {
      piece.fill(i)
      piece.writeUInt32LE(i, 1000)
      writeSync(fd, piece)
    }
    closeSync(fd)
    const captured = await site.look('large')
    const version = fileOf(captured)
    expect(version).toMatchObject({ consistency: 'stable', size: 40 << 20 })
    expect(contentOf(captured).equals(readFileSync(site.file('large')))).toBe(true)
    const offset = version.chunks.slice(0, 3).reduce((sum, { length }) => sum + length, 0)
    const chunk = version.chunks[3]
    if (chunk === undefined) throw new Error('few chunks')
    const path = relativePath('large')
    const fetched = await site.request({ kind: 'fetch', path, offset, chunk })
    expect([...fetched.chunks.keys()]).toEqual([chunk.digest])
    expect((await site.request({ kind: 'fetch', path, offset: offset + 1, chunk })).outcome).toEqual({ kind: 'fetched', found: false })
  })

  it('filters uncompressed pixels, and no others, also when their chunk is read again', async () => {
    const site = new CaptureSite()
    const image = sampleFile({ ...IMAGE, rows: 512, columns: 512 })
    writeFileSync(site.file('image'), image)
    writeFileSync(site.file('report'), 'no DICOM at all '.repeat(20_000))
    const captured = await site.look('image')
    const { chunks } = fileOf(captured)
    expect(chunks.map(({ digest }) => captured.stored.get(digest)?.filtered)).toEqual([false, ...chunks.slice(1).map(() => true)])
    expect(contentOf(captured).equals(image)).toBe(true)
    const bytes = [...captured.stored.values()].reduce((sum, stored) => sum + stored.bytes.length, 0)
    expect(bytes).toBeLessThan(0.8 * storedForm(image, undefined).bytes.length)
    const [header, chunk] = chunks
    if (header === undefined || chunk === undefined) throw new Error('few chunks')
    const fetched = await site.request({ kind: 'fetch', path: relativePath('image'), offset: header.length, chunk })
    expect(fetched.stored.get(chunk.digest)).toEqual(captured.stored.get(chunk.digest))
    const report = await site.look('report')
    expect([...report.stored.values()].every(({ filtered, compressed }) => !filtered && compressed)).toBe(true)
  })

  it('leaves content in the file that is larger than what is to be shipped', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'x'.repeat(1000))
    const captured = await site.look('f', { shipBytesMax: 999 })
    expect(fileOf(captured).size).toBe(1000)
    expect(captured.chunks.size).toBe(0)
  })

  it('cuts a DICOM file where its pixels begin, so that a new header costs only itself', async () => {
    const site = new CaptureSite()
    const pixels = Buffer.alloc(400_000, 7)
    writeFileSync(site.file('a'), dicomFile('Patient^One', pixels))
    writeFileSync(site.file('b'), dicomFile('Patient^Two^Longer', pixels))
    const [a, b] = [fileOf(await site.look('a')), fileOf(await site.look('b'))]
    expect(a.chunks[0]?.digest).not.toBe(b.chunks[0]?.digest)
    expect(a.chunks.slice(1)).toEqual(b.chunks.slice(1))
    expect(a.chunks[0]?.length).toBeLessThan(1000)
  })
})

describe('a look at something else', () => {
  it('captures directories, symlinks, fifos and names that are no text', async () => {
    const site = new CaptureSite()
    mkdirSync(site.file('d'), { mode: 0o750 })
    symlinkSync('/nowhere/\u00e9', site.file('l'))
    spawnSync('mkfifo', [site.file('p')])
    const odd = 'd/\xff\xfe' as RelativePath
    writeFileSync(pathBuffer(`${byteString(site.directory)}/${odd}`), 'odd')
    expect(versionOf(await site.look(''))).toMatchObject({ kind: 'directory' })
    expect(versionOf(await site.look('d'))).toMatchObject({ kind: 'directory', mode: 0o750 })
    expect(versionOf(await site.look('l'))).toMatchObject({ kind: 'symlink', target: byteString('/nowhere/\u00e9') })
    expect(versionOf(await site.look('p'))).toMatchObject({ kind: 'fifo' })
    expect(versionOf(await site.look('', { path: odd }))).toMatchObject({ kind: 'file', size: 3 })
  })

  it('names the highest directory that is gone', async () => {
    const site = new CaptureSite()
    mkdirSync(site.file('a/b'), { recursive: true })
    expect((await site.look('a/b/c')).outcome).toEqual({ kind: 'gone', topmost: 'a/b/c' })
    rmSync(site.file('a/b'), { recursive: true })
    expect((await site.look('a/b/c/d')).outcome).toEqual({ kind: 'gone', topmost: 'a/b' })
  })

  it('never follows a symlink out of the volume', async () => {
    const site = new CaptureSite()
    const outside = scratchDirectory()
    writeFileSync(join(outside, 'secret'), 'secret')
    symlinkSync(outside, site.file('d'))
    expect((await site.look('d/secret')).outcome).toEqual({ kind: 'gone', topmost: 'd/secret' })
  })

  it('does not call anything gone when the volume itself is another directory', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('f'), 'content')
    renameSync(site.directory, `${site.directory}-moved`)
    onTestFinished(() => rmSync(`${site.directory}-moved`, { recursive: true }))
    expect((await site.look('f')).outcome).toMatchObject({ kind: 'root-lost' })
    mkdirSync(site.directory)
    expect((await site.look('f')).outcome).toMatchObject({ kind: 'root-lost' })
  })
})

describe('many looks at once', () => {
  it('all end, and none of a changing file is torn without saying so', async () => {
    const site = new CaptureSite()
    const sizes = [0, 1, 1000, 300_000]
    const names = Array.from({ length: 200 }, (_, i) => `f${i}`)
    for (const [i, name] of names.entries()) writeFileSync(site.file(name), Buffer.alloc(sizes[i % 4] ?? 0, i))
    const changing = openSync(site.file('f3'), 'r+')
    ftruncateSync(changing, 10)
    // However late the threads begin, it has changed a moment ago.
    const soon = Date.now() / 1000 + 60
    futimesSync(changing, soon, soon)
    const captured = await Promise.all(names.map((name) => site.look(name)))
    closeSync(changing)
    for (const [i, each] of captured.entries()) {
      if (i === 3) expect(each.outcome.kind).toBe('busy')
      else expect(contentOf(each).equals(Buffer.alloc(sizes[i % 4] ?? 0, i))).toBe(true)
    }
  })
})

/** A small file in explicit VR little endian. */
function dicomFile(patient: string, pixels: Buffer): Buffer {
  const element = (group: number, number: number, vr: string, value: Buffer): Buffer => {
    const isLong = vr === 'OW' || vr === 'OB'
    const header = Buffer.alloc(isLong ? 12 : 8)
    header.writeUInt16LE(group, 0)
    header.writeUInt16LE(number, 2)
    header.write(vr, 4, 'latin1')
    if (isLong) header.writeUInt32LE(value.length, 8)
    else header.writeUInt16LE(value.length, 6)
    return Buffer.concat([header, value])
  }
  const text = (value: string): Buffer => Buffer.from(value.length % 2 === 0 ? value : `${value} `)
  const uid = (value: string): Buffer => Buffer.from(value.length % 2 === 0 ? value : `${value}\0`)
  const meta = Buffer.concat([
    element(2, 1, 'OB', Buffer.from([0, 1])),
    element(2, 2, 'UI', uid('1.2.840.10008.5.1.4.1.1.2')),
    element(2, 3, 'UI', uid('1.2.3.4')),
    element(2, 0x10, 'UI', uid('1.2.840.10008.1.2.1')),
  ])
  const length = Buffer.alloc(4)
  length.writeUInt32LE(meta.length)
  return Buffer.concat([
    Buffer.alloc(128),
    Buffer.from('DICM'),
    element(2, 0, 'UL', length),
    meta,
    element(8, 0x60, 'CS', text('CT')),
    element(0x10, 0x10, 'PN', text(patient)),
    element(0x7fe0, 0x10, 'OW', pixels),
  ])
}
