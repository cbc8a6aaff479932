import { spawnSync } from 'node:child_process'
import { createSecretKey } from 'node:crypto'
import { chmodSync, closeSync, openSync, readdirSync, readFileSync, statSync, truncateSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { FrameFileIdentity } from '../../collector/repository/file-header.ts'
import { repairFile } from '../../collector/repository/file-repair.ts'
import { packPayload, parityPayloads } from '../../collector/repository/frame.ts'
import { FrameFile, type MakeParity } from '../../collector/repository/frame-file.ts'
import { DEFAULT_PARITY, decodeStripe, encodeStripe, repairRegion, stripesOf } from '../../collector/repository/parity.ts'
import { parityOf } from '../../collector/repository/parity-thread.ts'
import { digestHex, digestOf } from '../../shared/digest.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const KEY = createSecretKey(Buffer.alloc(32, 9))
const IDENTITY: FrameFileIdentity = { kind: 'pack', repository: '00'.repeat(16), number: 1 }
const CHUNKS = 60
const REPAIR = join(import.meta.dirname, '../support/repair-file.ts')
/** Without a thread, for many repairs one after the other. */
const makeParity: MakeParity = async (path, bytes) =>
  Promise.resolve(Array.from(stripesOf(readFileSync(path).subarray(0, bytes), DEFAULT_PARITY), encodeStripe))

interface Sealed {
  readonly path: string
  readonly bytes: Buffer
  readonly contents: readonly Buffer[]
  /** Where the parity begins. */
  readonly regionBytes: number
  readonly random: Random
}

async function sealed(seed: number, parity: boolean): Promise<Sealed> {
  const random = new Random(seed)
  const path = join(scratchDirectory(), 'file.pack')
  const file = FrameFile.create(path, IDENTITY, KEY)
  const contents = Array.from({ length: CHUNKS }, () => random.bytes(1 + random.below(60_000)))
  for (const content of contents) file.append('chunk', packPayload(content))
  const regionBytes = file.size
  await file.sync()
  await (parity ? file.seal(parityOf(DEFAULT_PARITY)) : file.seal())
  file.close()
  return { path, bytes: readFileSync(path), contents, regionBytes, random }
}

function overwrite(path: string, offset: number, bytes: Buffer): void {
  chmodSync(path, 0o600)
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes, 0, bytes.length, offset)
  closeSync(fd)
}

function flip(path: string, offset: number, bit: number): void {
  overwrite(path, offset, Buffer.from([(readFileSync(path)[offset] ?? 0) ^ (1 << bit)]))
}

const repair = (path: string) => repairFile(path, IDENTITY, KEY, makeParity)

/** Contents that can be read, in order. */
function readable(path: string): Buffer[] {
  const file = FrameFile.open(path, IDENTITY, KEY)
  onTestFinished(() => file.close())
  return [...file.scan()].flatMap((found) =>
    found.kind === 'frame' && found.type === 'chunk' ? [file.read(found.offset, found.storedLength, found.digest)] : [],
  )
}

/** As it was, with nothing left beside it. */
function expectWhole({ path, bytes, contents, regionBytes }: Sealed): void {
  expect(readFileSync(path).subarray(0, regionBytes).equals(bytes.subarray(0, regionBytes))).toBe(true)
  const file = FrameFile.open(path, IDENTITY, KEY)
  onTestFinished(() => file.close())
  expect([...(file.sealedIndex() ?? [])]).toHaveLength(contents.length)
  expect([...file.scan()].every(({ kind }) => kind === 'frame')).toBe(true)
  expect(readable(path)).toEqual(contents)
  expect(statSync(path).mode & 0o777).toBe(0o400)
  expect(readdirSync(dirname(path))).toEqual(['file.pack'])
}

describe('a sealed file with parity', () => {
  it('is repaired after any single flipped bit, wherever it is', { timeout: 60_000 }, async () => {
    const whole = await sealed(1, true)
    for (let i = 0; i < 30; i++) {
      const offset = i < 2 ? i * 40 : whole.random.below(whole.bytes.length)
      flip(whole.path, offset, whole.random.below(8))
      const repaired = await repair(whole.path)
      expect(repaired?.lost).toEqual([])
      if (offset < whole.regionBytes) {
        expect(repaired?.healed).toHaveLength(1)
        const [block] = repaired?.healed ?? []
        if (block === undefined) throw new Error('no block')
        const { offset: at, length, after } = block
        expect(at <= offset && offset < at + length).toBe(true)
        expect(after).toBe(digestHex(digestOf(whole.bytes.subarray(at, at + length))))
      } else expect(repaired).toMatchObject({ healed: [], isEndHealed: true })
      expectWhole(whole)
    }
  })

  it('is repaired after many damaged sectors at once, as long as no stripe has more than its parity', async () => {
    const whole = await sealed(2, true)
    const [stripe] = stripesOf(whole.bytes.subarray(0, whole.regionBytes), DEFAULT_PARITY)
    const { blockBytes = 0, stripes = 0 } = stripe ?? {}
    // One after the other, so that each stripe has two.
    const from = whole.random.below(whole.regionBytes - 2 * stripes * blockBytes)
    const first = Math.ceil(from / blockBytes) * blockBytes
    overwrite(whole.path, first, Buffer.alloc(2 * stripes * blockBytes - blockBytes))
    expect((await repair(whole.path))?.lost).toEqual([])
    expectWhole(whole)
  })

  it('is repaired where its header, its index and its footer are damaged too', async () => {
    const whole = await sealed(3, true)
    overwrite(whole.path, 0, Buffer.alloc(96))
    truncateSync(whole.path, whole.bytes.length - 40)
    expect((await repair(whole.path))?.healed).toHaveLength(1)
    expectWhole(whole)
  })

  it('keeps what is whole, and says what is not, where there is too much damage', async () => {
    const whole = await sealed(4, true)
    const [stripe] = stripesOf(whole.bytes.subarray(0, whole.regionBytes), DEFAULT_PARITY)
    const { blockBytes = 0, stripes = 0 } = stripe ?? {}
    // Three blocks of one stripe, and one of another.
    for (const place of [1, 3, 5]) overwrite(whole.path, (place * stripes + 1) * blockBytes + 7, Buffer.alloc(16, 0xaa))
    overwrite(whole.path, 2 * stripes * blockBytes + 7, Buffer.alloc(16, 0xaa))
    const repaired = await repair(whole.path)
    expect(repaired?.lost).toHaveLength(3)
    expect(repaired?.healed).toHaveLength(1)
    const bytes = readFileSync(whole.path)
    expect(bytes.length).toBe(whole.bytes.length)
    const differing = [...bytes.keys()].filter((i) => bytes[i] !== whole.bytes[i])
    expect(differing.length).toBeGreaterThan(30)
    expect(differing.length).toBeLessThanOrEqual(48)
    // Nothing more can be done, and nothing is.
    expect(await repair(whole.path)).toBeUndefined()
    expect(readFileSync(whole.path).equals(bytes)).toBe(true)
    // What is left of the parity repairs other damage still.
    flip(whole.path, 3 * stripes * blockBytes + 9, 1)
    expect((await repair(whole.path))?.healed).toHaveLength(1)
    expect(readFileSync(whole.path).equals(bytes)).toBe(true)
  })

  it.each([
    ['its header', 20],
    ['a frame', 40_000],
  ])('is none where %s was damaged before: damage is not sealed', async (_, at) => {
    const path = join(scratchDirectory(), 'file.pack')
    const file = FrameFile.create(path, IDENTITY, KEY)
    onTestFinished(() => file.close())
    for (let i = 0; i < 3; i++) file.append('chunk', packPayload(new Random(i).bytes(30_000)))
    await file.sync()
    flip(path, at, 3)
    const before = readFileSync(path)
    await expect(file.seal(parityOf(DEFAULT_PARITY))).rejects.toThrow('is damaged at byte')
    expect(readFileSync(path).equals(before)).toBe(true)
  })

  it('is given parity anew where all of that is damaged and nothing else', async () => {
    const whole = await sealed(9, true)
    const frames = [...parityPayloads(whole.bytes)]
    for (const { offset } of frames) flip(whole.path, offset + 200, 1)
    expect(await repair(whole.path)).toMatchObject({ healed: [], isEndHealed: true, lost: [] })
    expectWhole(whole)
    flip(whole.path, 5000, 1)
    expect((await repair(whole.path))?.healed).toHaveLength(1)
    expectWhole(whole)
    // Not where content is damaged too: an end that is written anew would say that it is right.
    for (const { offset } of Array.from(parityPayloads(readFileSync(whole.path)))) flip(whole.path, offset + 200, 1)
    flip(whole.path, 5000, 1)
    const before = readFileSync(whole.path)
    expect(await repair(whole.path)).toBeUndefined()
    expect(readFileSync(whole.path).equals(before)).toBe(true)
  })

  it('whose sealing was cut short is gone on with, and sealed anew', async () => {
    const whole = await sealed(5, true)
    chmodSync(whole.path, 0o600)
    truncateSync(whole.path, Math.floor((whole.regionBytes + whole.bytes.length) / 2))
    const file = FrameFile.reopen(whole.path, IDENTITY, KEY)
    expect(file?.size).toBe(whole.regionBytes)
    const more = whole.random.bytes(1000)
    file?.append('chunk', packPayload(more))
    await file?.seal(makeParity)
    file?.close()
    expect(readable(whole.path)).toEqual([...whole.contents, more])
    flip(whole.path, whole.regionBytes + 90, 3)
    expect((await repair(whole.path))?.healed).toHaveLength(1)
    expect(readable(whole.path)).toEqual([...whole.contents, more])
  })
})

/** What `strace` makes of a system call, the nth time that it is made. */
async function repairInjected(path: string, injection: string): Promise<{ said: string; isKilled: boolean }> {
  const trace = ['-f', '-qq', '-o', '/dev/null', '-e', `inject=${injection}`]
  const { stdout, signal, status } = spawnSync(
    'strace',
    [...trace, process.execPath, '--disable-warning=ExperimentalWarning', REPAIR, path],
    {
      encoding: 'utf8',
    },
  )
  return Promise.resolve({ said: stdout, isKilled: signal === 'SIGKILL' || status === 137 })
}

describe.skipIf(spawnSync('strace', ['-V']).status !== 0 && process.env['CI'] === undefined)('a repair', () => {
  const STEPS = ['pwrite64', 'fsync', 'fchmod,chmod,fchmodat', 'rename,renameat,renameat2', 'unlink,unlinkat'] as const

  it.each(STEPS)('that is killed in %s leaves the file as it was, or repaired', async (calls) => {
    const whole = await sealed(7, true)
    let kills = 0
    for (let n = 1; ; n++) {
      flip(whole.path, 3000, 2)
      // Its end too, so that it is sealed anew.
      flip(whole.path, whole.bytes.length - 30, 1)
      const damaged = readFileSync(whole.path)
      const { isKilled, said } = await repairInjected(whole.path, `${calls}:signal=KILL:when=${n}`)
      if (!isKilled) {
        expect(said).toBe('repaired')
        break
      }
      kills += 1
      const now = readFileSync(whole.path)
      const isWhole = now.subarray(0, whole.regionBytes).equals(whole.bytes.subarray(0, whole.regionBytes))
      expect(isWhole || now.equals(damaged)).toBe(true)
      if (!isWhole) expect((await repair(whole.path))?.lost).toEqual([])
      expectWhole(whole)
    }
    expect(kills).toBeGreaterThan(0)
    expectWhole(whole)
  })

  it.each([
    ['pwrite64', 'ENOSPC', 'space'],
    ['fsync', 'EIO', 'io'],
    ['rename,renameat,renameat2', 'EIO', 'io'],
  ] as const)('whose %s fails with %s says so, and leaves the file as it was', async (calls, errno, code) => {
    const whole = await sealed(8, true)
    flip(whole.path, 3000, 2)
    const damaged = readFileSync(whole.path)
    const { said } = await repairInjected(whole.path, `${calls}:error=${errno}:when=1`)
    expect(said).toBe(code)
    expect(readFileSync(whole.path).equals(damaged)).toBe(true)
    expect(readdirSync(dirname(whole.path))).toEqual(['file.pack'])
    expect((await repair(whole.path))?.lost).toEqual([])
    expectWhole(whole)
  })
})

describe('a sealed file without parity', () => {
  it('is left as it is', async () => {
    const whole = await sealed(6, false)
    flip(whole.path, 5000, 1)
    const before = readFileSync(whole.path)
    expect(await repair(whole.path)).toBeUndefined()
    expect(readFileSync(whole.path).equals(before)).toBe(true)
  })
})

describe('a stripe', () => {
  it('is the same after it was written and read, for regions of every size', () => {
    for (const bytes of [1, 511, 512, 513, 5120, 5121, 41_000, 700_001]) {
      const region = new Random(bytes).bytes(bytes)
      const stripes = [...stripesOf(region, { dataBlocks: 4, parityBlocks: 3 })]
      for (const stripe of stripes) {
        const decoded = decodeStripe(encodeStripe(stripe))
        expect({ ...decoded, parity: decoded.parity.map((block) => [...block]) }).toEqual({
          ...stripe,
          parity: stripe.parity.map((block) => [...block]),
        })
      }
      const damaged = Buffer.from(region)
      damaged[Math.floor(bytes / 2)] = (damaged[Math.floor(bytes / 2)] ?? 0) ^ 1
      expect(repairRegion(damaged, stripes)).toMatchObject({ lost: [] })
      expect(damaged.equals(region)).toBe(true)
    }
  })

  it('that cannot be is refused', () => {
    const [stripe] = stripesOf(Buffer.alloc(3000), DEFAULT_PARITY)
    if (stripe === undefined) throw new Error('no stripe')
    for (const wrong of [{ number: stripe.stripes }, { regionBytes: 1e9 }, { blockBytes: 0 }, { checksums: [] }])
      expect(() => decodeStripe(encodeStripe({ ...stripe, ...wrong }))).toThrow('Parity frame')
  })
})
