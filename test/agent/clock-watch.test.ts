/** A machine that sleeps and a clock that is set, by readings that a test makes up; and what a history does with such a clock. */
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type ClockReading, ClockWatch, readClocks } from '../../agent/clock-watch.ts'
import { beginEpoch } from '../../agent/epoch.ts'
import { Journal } from '../../agent/journal.ts'
import { HybridClock, millisecondsOf } from '../../shared/clock.ts'
import { silentLog } from '../../shared/log.ts'
import { FIRST, fileVersion, put } from '../support/agent-parts.ts'
import { LoneAgent } from '../support/lone-agent.ts'
import { scratchDirectory } from '../support/scratch.ts'

const HOUR_MS = 3_600_000
const YEAR_MS = 365 * 24 * HOUR_MS
const START: ClockReading = { monotonicMs: 5000, boottimeMs: 905_000, wallMs: 1_790_000_000_000 }

/** A second later, and what else happened to each clock. */
function after({ monotonicMs = 0, boottimeMs = 0, wallMs = 0 }: Partial<ClockReading>): ClockReading {
  return {
    monotonicMs: START.monotonicMs + 1000 + monotonicMs,
    boottimeMs: START.boottimeMs + 1000 + boottimeMs,
    wallMs: START.wallMs + 1000 + wallMs,
  }
}

function causesOf(...readings: (ClockReading | undefined)[]): string[] {
  const causes: string[] = []
  const watch = new ClockWatch(
    (cause) => causes.push(cause),
    () => readings.shift(),
  )
  while (readings.length > 0) watch.look()
  return causes
}

describe('a watch over the clocks', () => {
  it.each([
    ['nothing', after({}), []],
    ['a disciplined clock', after({ wallMs: 500 }), []],
    ['a busy machine', after({ monotonicMs: 90_000, boottimeMs: 90_000, wallMs: 90_000 }), []],
    ['the granularity of /proc/uptime', after({ boottimeMs: -10 }), []],
    ['a suspension', after({ boottimeMs: 5_400_000, wallMs: 5_400_000 }), ['the machine was suspended for 5400 s']],
    ['a clock set back', after({ wallMs: -HOUR_MS }), ['the clock was set back by 3600 s']],
    ['a clock set forward', after({ wallMs: 3000 }), ['the clock was set forward by 3 s']],
    [
      'a suspension after which the clock was set back',
      after({ boottimeMs: 10_000, wallMs: 10_000 - HOUR_MS }),
      ['the machine was suspended for 10 s', 'the clock was set back by 3600 s'],
    ],
  ])('sees %s', (_, reading, causes) => {
    expect(causesOf(START, reading)).toEqual(causes)
  })

  it('tells of a leap once, and of the next one again', () => {
    const slept = after({ boottimeMs: 5000, wallMs: 5000 })
    const back = { ...slept, wallMs: slept.wallMs - 60_000 }
    expect(causesOf(START, slept, slept, back, back)).toEqual(['the machine was suspended for 5 s', 'the clock was set back by 60 s'])
  })

  it('leaves out readings that were interrupted', () => {
    expect(causesOf(START, undefined, after({ boottimeMs: 5000, wallMs: 5000 }))).toEqual(['the machine was suspended for 5 s'])
  })

  it('reads the clocks of this machine', () => {
    const reading = readClocks()
    expect(reading?.boottimeMs).toBeGreaterThan(1000)
    expect(causesOf(reading, readClocks())).toEqual([])
  })
})

describe('times of a history', () => {
  it('go on rising while the clock is an hour behind, and follow it again when it has caught up', () => {
    const wall = { ms: START.wallMs, now: (): number => wall.ms }
    const clock = new HybridClock(wall)
    let last = clock.tick()
    for (const ms of [-HOUR_MS, 0, HOUR_MS - 1, 2]) {
      wall.ms += ms
      for (let i = 0; i < 3; i++) {
        const next = clock.tick()
        expect(next > last).toBe(true)
        last = next
      }
    }
    expect(millisecondsOf(last)).toBe(wall.ms)
  })

  it('that are a year ahead, because the clock once was, stay in order, and the agent says so', async () => {
    const agent = new LoneAgent()
    const epoch = beginEpoch(join(agent.stateDir, 'epoch.json'), 'first', 0, undefined)
    const clock = new HybridClock({ now: () => Date.now() + YEAR_MS })
    const journal = await Journal.open({ directory: join(agent.stateDir, 'log'), epoch: epoch.epoch, clock, log: silentLog })
    await journal.append([FIRST])
    await journal.close()
    await agent.startAndWatch()
    expect(agent.status?.alarms).toEqual([expect.stringMatching(/clock was ahead, or is 3153\d{4} s behind/)])
    await agent.stop()
    const times = (await agent.records()).map(({ time }) => time)
    expect(times.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(times)
    expect(new Set(times).size).toBe(times.length)
  })

  it('that follow the clock are no alarm', async () => {
    const agent = new LoneAgent()
    await agent.startAndWatch()
    expect(agent.status?.alarms).toEqual([])
  })

  it('of a journal that is opened again while the clock is an hour behind are above its end', async () => {
    const directory = join(scratchDirectory(), 'log')
    const open = async (now: number): Promise<Journal> => {
      const journal = await Journal.open({ directory, epoch: 1, clock: new HybridClock({ now: () => now }), log: silentLog })
      onTestFinished(() => journal.close())
      return journal
    }
    const first = await open(START.wallMs)
    await first.append([FIRST])
    const end = first.head.time
    await first.close()
    const [entry] = await (await open(START.wallMs - HOUR_MS)).append([put('f', fileVersion('x'))])
    expect((entry?.record.time ?? 0n) > end).toBe(true)
  })
})
