import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Forecast } from '../../agent/forecast.ts'
import { LoneAgent } from '../support/lone-agent.ts'

const MB = 1e6

function forecastOf(samples: readonly (readonly [atSeconds: number, bytes: number, roomBytes: number])[]): number | undefined {
  const forecast = new Forecast()
  for (const [atSeconds, bytes, roomBytes] of samples) forecast.note(atSeconds * 1000, bytes, roomBytes)
  return forecast.fullInSeconds
}

describe('the forecast of a full spool', () => {
  it.each([
    [
      'nothing before half a minute is over',
      [
        [0, 0, 100 * MB],
        [20, 20 * MB, 80 * MB],
      ],
      undefined,
    ],
    [
      'what is left at the speed of growth',
      [
        [0, 0, 100 * MB],
        [40, 20 * MB, 80 * MB],
      ],
      160,
    ],
    [
      'nothing while it shrinks or stands still',
      [
        [0, 20 * MB, 80 * MB],
        [60, 20 * MB, 80 * MB],
      ],
      undefined,
    ],
    [
      'less where others take the room as well',
      [
        [0, 0, 100 * MB],
        [50, 10 * MB, 50 * MB],
      ],
      50,
    ],
    [
      'zero where nothing is left',
      [
        [0, 0, 10 * MB],
        [50, 20 * MB, -MB],
      ],
      0,
    ],
    [
      'the last minutes only',
      [
        [0, 0, 9e9],
        [1000, 900 * MB, 100 * MB],
        [1100, 901 * MB, 99 * MB],
      ],
      9900,
    ],
  ] as const)('is %s', (_, samples, seconds) => {
    expect(forecastOf(samples)).toBe(seconds)
  })

  it('needs few samples, however often it is told', () => {
    const forecast = new Forecast()
    for (let i = 0; i <= 100_000; i++) forecast.note(i * 10, i * 1000, 1e9)
    expect(forecast.fullInSeconds).toBe(10_000)
  })
})

describe('an agent without its collector', () => {
  it('says when its spool will be full, and raises an alarm before it is', async () => {
    const agent = new LoneAgent()
    agent.quotaBytes = 20 * MB
    await agent.startAndWatch()
    expect(agent.status).not.toHaveProperty('spoolFullInSeconds')
    let written = 0
    await expect
      .poll(
        () => {
          agent.write(`f${written}`, randomBytes(50_000).toString('base64'))
          agent.tell(`f${written++}`)
          return agent.status?.spoolFullInSeconds
        },
        { timeout: 60_000, interval: 500 },
      )
      .toBeGreaterThan(0)
    expect(agent.status?.alarms).toEqual([expect.stringMatching(/^the spool will be full in about \d+ minutes$/)])
  }, 90_000)
})
