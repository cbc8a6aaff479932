import { describe, expect, it } from 'vitest'
import { DigestSet } from '../../collector/digest-set.ts'
import { DIGEST_BYTES, digest, digestOf } from '../../shared/digest.ts'

describe('a set of digests', () => {
  it('has what was added and nothing else, however many there are', () => {
    const set = new DigestSet()
    const names = Array.from({ length: 200_000 }, (_, i) => digestOf(Buffer.from(`${i}`)))
    for (const name of [...names, ...names]) set.add(name)
    expect(set.size).toBe(names.length)
    expect(names.every((name) => set.has(name))).toBe(true)
    expect(Array.from({ length: 20_000 }, (_, i) => set.has(digestOf(Buffer.from(`other ${i}`)))).some(Boolean)).toBe(false)
  })

  it('takes one that begins with zeros', () => {
    const set = new DigestSet()
    const zeros = digest('\0'.repeat(DIGEST_BYTES))
    expect(set.has(zeros)).toBe(false)
    set.add(zeros)
    expect(set.has(zeros)).toBe(true)
  })
})
