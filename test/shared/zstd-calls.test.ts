import { randomBytes } from 'node:crypto'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { compressedBound, zstd as open } from '../../shared/zstd-calls.ts'

describe("this Node.js's own zstd", () => {
  const zstd = open()
  if (zstd === undefined) throw new Error('it shows none, and every decompression takes several times as long')

  it('gives what was compressed, one piece behind the other, and leaves what is behind it alone', () => {
    for (const plain of [Buffer.alloc(0), Buffer.from('x'), randomBytes(70_000), Buffer.alloc(3 << 20, 'again and again ')]) {
      const to = Buffer.alloc(plain.length + 8, 0x55)
      expect(zstd.decompress(zstdCompressSync(plain), to)).toBe(plain.length)
      expect(to.subarray(0, plain.length).equals(plain)).toBe(true)
      expect(to.subarray(plain.length).toString('hex')).toBe('55'.repeat(8))
    }
  })

  it('compresses what it and others decompress, and needs no more room than is said', () => {
    const numbers = Buffer.from(Array.from({ length: 4000 }, (_, i) => i % 251))
    for (const plain of [Buffer.alloc(0), Buffer.from('x'), numbers, randomBytes(200), randomBytes(70_000), randomBytes(300_000)]) {
      const room = compressedBound(plain.length)
      const to = Buffer.alloc(room + 8, 0x55)
      const length = zstd.compress(plain, to.subarray(0, room), 1)
      expect(to.subarray(room).toString('hex')).toBe('55'.repeat(8))
      expect(zstdDecompressSync(to.subarray(0, length)).equals(plain)).toBe(true)
      const back = Buffer.alloc(plain.length)
      expect(zstd.decompress(to.subarray(0, length), back)).toBe(plain.length)
      expect(back.equals(plain)).toBe(true)
    }
    expect(() => zstd.compress(randomBytes(5000), Buffer.alloc(100), 1)).toThrow('5000 bytes into 100')
  })

  it('takes no more room than it is given', () => {
    const bomb = zstdCompressSync(Buffer.alloc(64 << 20))
    const memory = Buffer.alloc(4096, 0x55)
    expect(zstd.decompress(bomb, memory.subarray(1024, 2048))).toBeUndefined()
    expect(memory.subarray(0, 1024).equals(Buffer.alloc(1024, 0x55))).toBe(true)
    expect(memory.subarray(2048).equals(Buffer.alloc(2048, 0x55))).toBe(true)
  })

  it('knows what is no zstd, or is cut off, and goes on with what is', () => {
    const plain = randomBytes(5000)
    const whole = zstdCompressSync(plain)
    const to = Buffer.alloc(plain.length)
    for (const bytes of [Buffer.from('no zstd at all'), whole.subarray(0, -1), Buffer.concat([whole, Buffer.from('more')])])
      expect(zstd.decompress(bytes, to)).toBeUndefined()
    expect(zstd.decompress(whole, to)).toBe(plain.length)
    expect(to.equals(plain)).toBe(true)
  })
})
