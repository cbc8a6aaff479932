import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ContentCheck } from '../../collector/content-check.ts'
import { JournalWriter } from '../support/journal-writer.ts'

const DAMAGE = expect.objectContaining({ code: 'damage' }) as Error
const versionOf = (content: Buffer) => new JournalWriter().fileVersion(content)

function check(content: Buffer, pieces: readonly Uint8Array[]): () => void {
  return () => {
    const check = new ContentCheck(versionOf(content))
    for (const piece of pieces) check.add(piece)
    check.end()
  }
}

describe('the check of a content', () => {
  it('passes what it is, in whatever pieces it comes', () => {
    const cuts = fc.tuple(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat(300), { maxLength: 5 }))
    fc.assert(
      fc.property(cuts, ([bytes, at]) => {
        const places = [0, ...at.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length]
        expect(
          check(
            Buffer.from(bytes),
            places.slice(1).map((end, i) => bytes.subarray(places[i], end)),
          ),
        ).not.toThrow()
      }),
    )
  })

  it('passes nothing else: other bytes, fewer, more, and the same ones twice', () => {
    const content = Buffer.from('the content of a file')
    const other = Buffer.from(content)
    other[3] = (other[3] ?? 0) ^ 1
    const halves = (of: Buffer): Buffer[] => [of.subarray(0, 7), of.subarray(7)]
    for (const pieces of [
      [],
      [other],
      halves(other),
      [content.subarray(1)],
      [content, Buffer.from('x')],
      [content, content],
      [...halves(content), ...halves(content)],
      halves(content).reverse(),
    ])
      expect(check(content, pieces)).toThrow(DAMAGE)
    expect(check(Buffer.alloc(0), [Buffer.from('x')])).toThrow(DAMAGE)
    expect(check(Buffer.alloc(0), [])).not.toThrow()
  })

  it('does not hash a whole again that was held against its digest, and does not believe one of another content', () => {
    const content = Buffer.from('one piece')
    const version = versionOf(content)
    const known = new ContentCheck(version)
    known.add(content, version.digest)
    expect(() => known.end()).not.toThrow()
    const wrong = new ContentCheck(version)
    wrong.add(content, versionOf(Buffer.from('another')).digest)
    expect(() => wrong.end()).toThrow(DAMAGE)
  })
})
