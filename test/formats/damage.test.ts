import { createSecretKey } from 'node:crypto'
/** What a reader does with what is broken, torn, or of a newer release. */
import { appendFileSync, chmodSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { describe, expect, it, onTestFinished } from 'vitest'
import { checkRepository } from '../../collector/check.ts'
import { OfflineHistory } from '../../collector/offline-history.ts'
import { packPayload, sealFrame } from '../../collector/repository/frame.ts'
import { FrameFile, type ScannedFrame } from '../../collector/repository/frame-file.ts'
import { parseSlot } from '../../collector/repository/key-slot.ts'
import { encodeRecordGroup } from '../../collector/repository/record-group.ts'
import { readDescription } from '../../collector/repository/repository.ts'
import { NO_DIGEST } from '../../shared/digest.ts'
import { label } from '../../shared/path.ts'
import { decodeRecord } from '../../shared/record.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { copiedRepository, GOLDEN, goldenItems, goldenRepository } from './examples.ts'

const DATA_KEY = Buffer.from(goldenRepository().dataKey, 'hex')
const KEY = createSecretKey(DATA_KEY)
const IDENTITY = { kind: 'segment', repository: '00'.repeat(16), number: 1 } as const

/** A file of frames that hold these contents. @returns its path, and where each frame begins, with the end */
async function framesOf(contents: readonly string[], isSealed = false): Promise<{ path: string; bounds: number[] }> {
  const path = join(scratchDirectory(), 'frames')
  const file = FrameFile.create(path, IDENTITY, KEY)
  const bounds = contents.map((content) => file.append('records', packPayload(Buffer.from(content))).offset)
  await file.sync()
  bounds.push(file.size)
  if (isSealed) await file.seal()
  file.close()
  return { path, bounds }
}

function withFile<Result>(path: string, use: (file: FrameFile) => Result): Result {
  const file = FrameFile.open(path, IDENTITY, KEY)
  try {
    return use(file)
  } finally {
    file.close()
  }
}

const contentsOf = (path: string): string[] =>
  withFile(path, (file) =>
    [...file.scan()].flatMap((found) =>
      found.kind === 'frame' && found.type === 'records' ? [file.read(found.offset, found.storedLength, found.digest).toString()] : [],
    ),
  )

const scanned = (path: string): ScannedFrame[] => withFile(path, (file) => [...file.scan()])

function reopened(path: string): FrameFile | undefined {
  const file = FrameFile.reopen(path, IDENTITY, KEY)
  if (file !== undefined) onTestFinished(() => file.close())
  return file
}

describe('a last frame that was cut short', () => {
  it('is a torn tail at every length, is cut, and appending goes on', async () => {
    const { path, bounds } = await framesOf(['first', 'second', 'third'])
    const whole = readFileSync(path)
    const [, , third = 0, end = 0] = bounds
    for (let length = third; length < end; length++) {
      writeFileSync(path, whole.subarray(0, length))
      const tail = scanned(path).filter((found) => found.kind === 'damage')
      expect(tail.map(({ tail: isTail }) => isTail)).toEqual(length === third ? [] : [true])
      const file = FrameFile.reopen(path, IDENTITY, KEY)
      expect(file?.size).toBe(third)
      expect(statSync(path).size).toBe(third)
      file?.append('records', packPayload(Buffer.from('again')))
      await file?.sync()
      file?.close()
      expect(contentsOf(path)).toEqual(['first', 'second', 'again'])
    }
  })

  it('is a torn tail too where the file system left zeros or noise behind it', async () => {
    const { path, bounds } = await framesOf(['first', 'second'])
    const second = bounds[1] ?? 0
    truncateSync(path, second + 40)
    appendFileSync(path, Buffer.alloc(5000))
    appendFileSync(path, Buffer.from('PcF1 is no frame by its name alone'))
    expect(reopened(path)?.size).toBe(second)
    expect(contentsOf(path)).toEqual(['first'])
  })
})

describe('a flipped bit', () => {
  it('in a frame that others follow is damage: reported with its place, never cut, and all the rest is read', async () => {
    const { path, bounds } = await framesOf(['first', 'second', 'third'])
    const whole = readFileSync(path)
    const [, second = 0, third = 0] = bounds
    for (let at = second; at < third; at++) {
      const flipped = Buffer.from(whole)
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8))
      writeFileSync(path, flipped)
      // The eighth byte of a frame says nothing, but its CRC covers it.
      const damage = scanned(path).filter((found) => found.kind === 'damage')
      expect(damage).toEqual([expect.objectContaining({ offset: second, length: third - second, tail: false })])
      expect(contentsOf(path)).toEqual(['first', 'third'])
      expect(reopened(path)).toBeUndefined()
      expect(statSync(path).size).toBe(whole.length)
    }
  })

  it('in the index or the footer of a sealed file costs a reading front to back, and is reported', async () => {
    const { path, bounds } = await framesOf(['first', 'second'], true)
    const whole = readFileSync(path)
    chmodSync(path, 0o600)
    for (let at = bounds[2] ?? 0; at < whole.length; at++) {
      const flipped = Buffer.from(whole)
      flipped[at] = (flipped[at] ?? 0) ^ 0x10
      writeFileSync(path, flipped)
      expect(withFile(path, (file) => file.sealedIndex())).toBeUndefined()
      expect(contentsOf(path)).toEqual(['first', 'second'])
      expect(scanned(path).some((found) => found.kind === 'damage')).toBe(true)
    }
  })

  it('in the header makes the file damage as a whole', async () => {
    const { path } = await framesOf(['first'])
    const whole = readFileSync(path)
    for (let at = 0; at < 96; at++) {
      const flipped = Buffer.from(whole)
      flipped[at] = (flipped[at] ?? 0) ^ 0x01
      writeFileSync(path, flipped)
      expect(() => contentsOf(path)).toThrow(expect.objectContaining({ code: 'damage' }))
    }
  })
})

describe('any one damaged byte of a repository', () => {
  it('is found by check, and leaves every other record readable', async () => {
    const directory = copiedRepository()
    const path = join(directory, 'segments/01/000000000001.seg')
    chmodSync(path, 0o600)
    const whole = readFileSync(path)
    for (let at = 96; at < whole.length; at += 211) {
      const flipped = Buffer.from(whole)
      flipped[at] = (flipped[at] ?? 0) ^ 0x80
      writeFileSync(path, flipped)
      const report = await checkRepository(directory, DATA_KEY)
      expect(report.damage.length).toBeGreaterThan(0)
      expect(report.damage.every(({ file }) => file.endsWith('.seg'))).toBe(true)
      await using history = await OfflineHistory.open(directory, DATA_KEY)
      // Segment 2 holds the second epoch, which stands on its own.
      expect((await history.point(label('pacs1', 'Agent'), label('images', 'Volume'), { kind: 'head' })).position).toEqual({
        epoch: 2,
        seq: 8,
      })
    }
  })
})

describe('what a newer release wrote', () => {
  function patchedFrame(patch: (frame: Buffer) => void): Buffer {
    const frame = sealFrame('chunk', packPayload(Buffer.from('newer')), KEY, createSecretKey(Buffer.alloc(32, 7)))
    patch(frame)
    frame.writeUInt32LE(crc32(frame.subarray(0, 76)), 76)
    return frame
  }

  it.each<[string, (frame: Buffer) => void]>([
    ['type 4', (frame) => frame.writeUInt8(4, 4)],
    ['type 127', (frame) => frame.writeUInt8(127, 4)],
    ['type 0', (frame) => frame.writeUInt8(0, 4)],
    ['flags 2', (frame) => frame.writeUInt8(2, 5)],
    ['content filter 2', (frame) => frame.writeUInt8(2, 6)],
  ])('is refused by name: a frame of %s', async (what, patch) => {
    const { path } = await framesOf(['first'])
    appendFileSync(path, patchedFrame(patch))
    const unknown = expect.objectContaining({ code: 'format-unknown', message: expect.stringContaining(what) })
    expect(() => scanned(path)).toThrow(unknown)
    const size = statSync(path).size
    expect(() => FrameFile.reopen(path, IDENTITY, KEY)).toThrow(unknown)
    expect(statSync(path).size).toBe(size)
  })

  it('is passed over where it may be: a frame of type 128 and more, also by an index that is made later', async () => {
    const { path } = await framesOf(['first'])
    for (const type of [128, 255]) {
      appendFileSync(
        path,
        patchedFrame((frame) => {
          frame.writeUInt8(type, 4)
          frame.writeUInt8(0xff, 5)
          frame.writeUInt8(0xff, 6)
        }),
      )
    }
    const file = reopened(path)
    file?.append('records', packPayload(Buffer.from('second')))
    await file?.seal()
    expect(contentsOf(path)).toEqual(['first', 'second'])
    expect(withFile(path, (sealed) => [...(sealed.sealedIndex() ?? [])])).toHaveLength(2)
  })

  it.each([
    ['a kind of record', 'mark', (bytes: Buffer) => bytes.writeUInt8(11, 56), 'kind 11'],
    ['a kind of file', 'put', (bytes: Buffer) => bytes.writeUInt8(8, 57 + 7 + 1), 'kind of file'],
    ['a watch mode', 'coverage', (bytes: Buffer) => bytes.writeUInt8(3, bytes.length - 1), 'watch mode'],
    ['a reason', 'epoch', (bytes: Buffer) => bytes.writeUInt8(6, 57 + 6), 'reason'],
  ] as const)('is refused by name: %s', (_, kind, patch, named) => {
    const item = goldenItems('records.json').find(({ value }) => value.kind === kind)
    const bytes = Buffer.from(item?.hex ?? '', 'hex')
    patch(bytes)
    expect(() => decodeRecord(bytes)).toThrow(expect.objectContaining({ code: 'format-unknown', message: expect.stringContaining(named) }))
  })

  it('is refused by name: a critical field of a version', () => {
    // The record with an extension field ends in: count 1, tag 200 (c8 01), 5 bytes.
    const item = goldenItems('records.json').find(({ hex }) => hex.endsWith('01c801056c61746572'))
    const critical = Buffer.from(`${item?.hex.slice(0, -18)}017f056c61746572`, 'hex')
    expect(() => decodeRecord(critical)).toThrow(
      expect.objectContaining({ code: 'format-unknown', message: expect.stringContaining('127') }),
    )
  })

  it('is refused by name: a record of an unknown kind in a repository', async () => {
    const directory = copiedRepository()
    const file = FrameFile.create(
      join(directory, 'segments/02/000000000102.seg'),
      { kind: 'segment', repository: readDescription(directory).id, number: 0x102 },
      KEY,
    )
    const record = Buffer.alloc(57)
    record.write(NO_DIGEST, 0, 'latin1')
    record.writeBigUInt64LE(9n, 32)
    record.writeBigUInt64LE(1n, 40)
    record.writeUInt8(42, 56)
    file.append('records', packPayload(encodeRecordGroup({ agent: label('pacs1', 'Agent'), records: [record] })))
    await file.sync()
    file.close()
    await expect(OfflineHistory.open(directory, DATA_KEY)).rejects.toThrow(/kind 42/)
  })

  it('is refused by name: a repository, a key slot, a file of frames of another version', async () => {
    const directory = copiedRepository()
    writeFileSync(join(directory, 'repository.json'), JSON.stringify({ format: 'pacsimile repository', version: 2, anything: 'else' }))
    expect(() => readDescription(directory)).toThrow(
      expect.objectContaining({ code: 'format-unknown', message: expect.stringContaining('format 2') }),
    )
    expect(() => parseSlot('{"version": 2}', '')).toThrow(expect.objectContaining({ code: 'format-unknown' }))
    const { path } = await framesOf(['first'])
    const bytes = readFileSync(path)
    bytes.writeUInt8(2, 9)
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 92)
    writeFileSync(path, bytes)
    expect(() => contentsOf(path)).toThrow(expect.objectContaining({ code: 'format-unknown' }))
  })

  it('is passed over where it may be: members of repository.json, a minor version', async () => {
    const directory = copiedRepository()
    const about = JSON.parse(readFileSync(join(GOLDEN, 'repository/repository.json'), 'utf8')) as object
    writeFileSync(join(directory, 'repository.json'), JSON.stringify({ ...about, later: true }))
    expect(readDescription(directory)).not.toHaveProperty('later')
    const { path } = await framesOf(['first'])
    const bytes = readFileSync(path)
    bytes.writeUInt8(7, 10)
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 92)
    writeFileSync(path, bytes)
    expect(contentsOf(path)).toEqual(['first'])
  })
})

describe('the newest file of a repository', () => {
  it('is not cut where the catalog knows that it was durable, although nothing whole follows the damage', async () => {
    const path = join(scratchDirectory(), 'pack')
    const written = FrameFile.create(path, IDENTITY, KEY)
    written.append('chunk', packPayload(Buffer.from('acknowledged')))
    await written.sync()
    const durable = written.size
    written.close()
    const bytes = readFileSync(path)
    bytes[durable - 30] = (bytes[durable - 30] ?? 0) ^ 1
    writeFileSync(path, bytes)
    expect(FrameFile.reopen(path, IDENTITY, KEY, durable)).toBeUndefined()
    expect(readFileSync(path).length).toBe(durable)
    const cut = FrameFile.reopen(path, IDENTITY, KEY)
    expect(cut?.size).toBeLessThan(durable)
    cut?.close()
  })
})
