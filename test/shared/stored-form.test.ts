import { randomBytes } from 'node:crypto'
import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Samples } from '../../shared/sample-filter.ts'
import { forgetMemory, plainOf, storedForm } from '../../shared/stored-form.ts'
import { noisySlope } from '../support/pixels.ts'

const SAMPLES: Samples = { width: 2, isBigEndian: false, stride: 1, lead: 0 }

describe('the stored form', () => {
  it('of samples is filtered, and far smaller than compression makes it', () => {
    const plain = noisySlope(256, 256)
    const stored = storedForm(plain, SAMPLES)
    expect(stored).toMatchObject({ filtered: true, compressed: true })
    expect(stored.bytes.length).toBeLessThan(0.75 * storedForm(plain, undefined).bytes.length)
    expect(plainOf(stored, plain.length)).toEqual(plain)
  })

  it('is not filtered where that does not pay, whatever is said to be in it', () => {
    const text = Buffer.from('A report is text, and text is not made of numbers that are alike. '.repeat(2000))
    const stored = storedForm(text, SAMPLES)
    expect(stored).toMatchObject({ filtered: false, compressed: true })
    expect(plainOf(stored, text.length)).toEqual(text)
  })

  it('is the content itself where nothing pays', () => {
    for (const plain of [randomBytes(100_000), Buffer.from('short')]) {
      expect(storedForm(plain, SAMPLES)).toEqual({ filtered: false, compressed: false, bytes: plain })
      expect(storedForm(plain, undefined)).toEqual({ filtered: false, compressed: false, bytes: plain })
    }
  })

  it('is its own: what is stored after it leaves it as it is', () => {
    const plains = [noisySlope(64, 64), noisySlope(128, 64), Buffer.from('text '.repeat(1000))]
    const stored = plains.map((plain) => storedForm(plain, SAMPLES))
    for (const [i, one] of stored.entries()) expect(plainOf(one, plains[i]?.length ?? 0)).toEqual(plains[i])
  })

  it('is the same when memory was given back meanwhile', () => {
    const plain = noisySlope(128, 64)
    const before = storedForm(plain, SAMPLES)
    forgetMemory()
    expect(storedForm(plain, SAMPLES)).toEqual(before)
    expect(plainOf(before, plain.length)).toEqual(plain)
  })

  it('is undone whatever the content, and whatever is said of it', () => {
    const samples = fc.record<Samples>({
      width: fc.constantFrom(1, 2, 4),
      isBigEndian: fc.boolean(),
      stride: fc.integer({ min: 1, max: 4 }),
      lead: fc.constant(0),
    })
    const runs = fc.array(fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 400 })), { maxLength: 30 })
    fc.assert(
      fc.property(runs, fc.option(samples, { nil: undefined }), (content, what) => {
        const plain = Buffer.concat(content.map(([byte, count]) => Buffer.alloc(count, byte)))
        expect(plainOf(storedForm(plain, what), plain.length)).toEqual(plain)
      }),
    )
  })

  it('that is longer or shorter than it says is damage, and takes no more memory than it says', () => {
    const bomb = zstdCompressSync(Buffer.alloc(64 << 20))
    for (const filtered of [false, true]) {
      expect(() => plainOf({ filtered, compressed: true, bytes: bomb }, 10)).toThrow(expect.objectContaining({ code: 'damage' }))
      expect(() => plainOf({ filtered, compressed: false, bytes: Buffer.alloc(8) }, 10)).toThrow(
        expect.objectContaining({ code: 'damage' }),
      )
    }
  })
})
