import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PacsimileError } from '../../shared/errors.ts'
import { filteredLength, filterSamples, type Samples, unfilterSamples } from '../../shared/sample-filter.ts'

const WIDTHS: readonly Samples['width'][] = [1, 2, 4]

function filtered(plain: Uint8Array, samples: Samples): Buffer {
  const to = Buffer.alloc(filteredLength(plain.length), 0x55)
  filterSamples(plain, samples, to)
  return to
}

const anySamples: fc.Arbitrary<Samples> = fc
  .record({ width: fc.constantFrom(...WIDTHS), isBigEndian: fc.boolean(), stride: fc.integer({ min: 1, max: 4 }), lead: fc.nat(3) })
  .map((samples) => ({ ...samples, lead: samples.lead % samples.width }))

describe('the sample filter', () => {
  it('gives what docs/format.md works out', () => {
    const plain = Buffer.from('640065006300ffff2a', 'hex')
    expect(filtered(plain, { width: 2, isBigEndian: false, stride: 1, lead: 0 }).toString('hex')).toBe('0100000000c80203c72a')
  })

  it('is undone for every width, byte order, stride, lead and length, whatever the bytes are', () => {
    fc.assert(
      fc.property(anySamples, fc.uint8Array({ maxLength: 200 }), (samples, bytes) => {
        fc.pre(bytes.length >= samples.lead)
        expect(unfilterSamples(filtered(bytes, samples))).toEqual(Buffer.from(bytes))
      }),
      { numRuns: 2000 },
    )
  })

  it('is undone where the bytes lie at an odd address', () => {
    for (const width of WIDTHS) {
      const memory = Buffer.from(Array.from({ length: 65 }, (_, i) => (i * 89) & 0xff))
      const plain = memory.subarray(1)
      const result = filtered(plain, { width, isBigEndian: false, stride: 1, lead: 0 })
      const odd = Buffer.concat([Buffer.alloc(3), result]).subarray(3)
      expect(unfilterSamples(odd)).toEqual(plain)
    }
  })

  it('brings differences of signed and of big-endian samples together', () => {
    const plain = Buffer.alloc(200)
    for (let i = 0; i < 100; i++) plain.writeInt16BE(i - 50, 2 * i)
    const result = filtered(plain, { width: 2, isBigEndian: true, stride: 1, lead: 0 })
    // All but the first differ by 1 from the one before.
    expect(new Set(result.subarray(2, 101))).toEqual(new Set([0]))
    expect(new Set(result.subarray(102))).toEqual(new Set([2]))
  })

  it('takes each colour from its own', () => {
    const plain = Buffer.from([10, 100, 200, 11, 101, 201, 12, 102, 202])
    const result = filtered(plain, { width: 1, isBigEndian: false, stride: 3, lead: 0 })
    expect([...result.subarray(4)]).toEqual([2, 2, 2, 2, 2, 2])
  })

  it('refuses what is no filtered form, and never gives more than it was given', () => {
    for (const bytes of ['', '80', '03', '21', '60', '41'])
      expect(() => unfilterSamples(Buffer.from(bytes, 'hex')), bytes).toThrow(PacsimileError)
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        try {
          expect(unfilterSamples(bytes)).toHaveLength(bytes.length - 1)
        } catch (error) {
          expect(error).toMatchObject({ code: 'damage' })
        }
      }),
    )
  })

  it('refuses to filter samples that cannot be', () => {
    const plain = Buffer.alloc(10)
    for (const wrong of [{ stride: 0 }, { stride: 5 }, { lead: 2 }, { lead: -1 }])
      expect(() => filtered(plain, { width: 2, isBigEndian: false, stride: 1, lead: 0, ...wrong })).toThrow(RangeError)
  })
})
