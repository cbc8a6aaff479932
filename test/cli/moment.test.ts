import { describe, expect, it } from 'vitest'
import { pointFields, pointLines, pointWarnings, requireComplete } from '../../collector/cli/moment.ts'
import { type Point, showLocalTime, showMoment } from '../../collector/point.ts'
import { at, LAST_MS } from '../support/fake-history.ts'

const head: Point = {
  position: { epoch: 1, seq: 9 },
  time: at(LAST_MS),
  requestedMs: undefined,
  next: undefined,
  gap: undefined,
  whole: true,
  coverage: { from: at(LAST_MS - 60_000), until: at(LAST_MS + 1000), mode: 'complete' },
}
const between: Point = { ...head, requestedMs: LAST_MS + 425, next: at(LAST_MS + 1500) }

describe('a moment', () => {
  it('that was asked for is said in local time and UTC, with the changes next to it', () => {
    expect(pointLines(between)).toEqual([
      showMoment(LAST_MS + 425),
      `  last change  ${showLocalTime(LAST_MS)}, 425 ms earlier (seq 1:9)`,
      `  next change  ${showLocalTime(LAST_MS + 1500)}, 1.1 s later`,
      '  watched      complete, proven',
    ])
    expect(showMoment(LAST_MS)).toContain('(2026-11-24T10:00:00.000Z)')
  })

  it('after the last change says that there is none yet', () => {
    expect(pointLines({ ...between, next: undefined })).toContain('  next change  none so far')
  })

  it('says how far it is proven that nothing was missed', () => {
    const last = (point: Point): string | undefined => pointLines(point).at(-1)
    const until = LAST_MS + 1000
    expect(last({ ...between, requestedMs: until })).toBe('  watched      complete, proven')
    expect(last({ ...between, requestedMs: until + 2000 })).toBe(
      `  watched      complete, proven until ${showLocalTime(until)}, 2.0 s earlier`,
    )
    expect(last({ ...between, coverage: undefined })).toContain('not proven')
    expect(pointFields({ ...between, requestedMs: until })).toMatchObject({ covered: true })
    expect(pointFields({ ...between, requestedMs: until + 1 })).toMatchObject({ covered: false, coveredUntil: '2026-11-24T10:00:01.000Z' })
    expect(pointFields({ ...between, coverage: undefined })).toMatchObject({ covered: false, coveredUntil: null })
  })

  it('may be asked to be complete', () => {
    const refusal = (point: Point): unknown => {
      try {
        requireComplete(point)
        return undefined
      } catch (error) {
        return error
      }
    }
    const gap = { from: at(LAST_MS), until: at(LAST_MS + 1000), cause: 'the agent was stopped' }
    expect(refusal(between)).toBeUndefined()
    expect(refusal({ ...head, coverage: undefined })).toBeUndefined()
    expect(refusal({ ...between, gap })).toMatchObject({
      code: 'outside-window',
      message: expect.stringContaining('the agent was stopped') as string,
    })
    expect(refusal({ ...between, whole: false })).toMatchObject({ message: expect.stringContaining('first full scan') as string })
    expect(refusal({ ...between, coverage: undefined })).toMatchObject({ message: expect.stringContaining('nothing proves') as string })
    expect(refusal({ ...between, requestedMs: LAST_MS + 1001 })).toMatchObject({
      message: expect.stringContaining('is proven until') as string,
    })
  })

  it('in the future is the newest state, and warned of', () => {
    const [warning, ...more] = pointWarnings({ ...between, requestedMs: Date.now() + 3 * 3_600_000 })
    expect(warning).toContain('in the future')
    expect(more).toEqual([])
    expect(pointWarnings({ ...between, requestedMs: Date.now() })).toEqual([])
  })

  it('that is the head, or a record, is the time of that record', () => {
    expect(pointLines(head)).toEqual([`${showMoment(LAST_MS)}, seq 1:9, the newest`])
    expect(pointLines({ ...head, next: at(LAST_MS + 5) })).toEqual([`${showMoment(LAST_MS)}, seq 1:9`])
  })

  it('is warned of when the state there is not certain', () => {
    expect(pointWarnings(head)).toEqual([])
    const gap = { from: at(LAST_MS), until: at(LAST_MS + 1000), cause: 'the agent was stopped' }
    const warnings = pointWarnings({ ...between, whole: false, gap })
    expect(warnings).toHaveLength(2)
    expect(warnings[0]).toContain('first full scan')
    expect(warnings[1]).toContain('the agent was stopped')
  })

  it('is exact in JSON', () => {
    expect(pointFields(between)).toMatchObject({
      moment: '2026-11-24T10:00:00.425Z',
      lastChange: '2026-11-24T10:00:00.000Z',
      nextChange: '2026-11-24T10:00:01.500Z',
      gap: null,
      seq: 9,
    })
    expect(pointFields(head)).toMatchObject({ moment: '2026-11-24T10:00:00.000Z', nextChange: null })
  })
})
