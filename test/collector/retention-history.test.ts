import { describe, expect, it } from 'vitest'
import type { RelativePath } from '../../shared/path.ts'
import type { Position } from '../../shared/record.ts'
import { directoryVersion, VOLUME } from '../support/journal-writer.ts'
import { Archive, DAY_MS, HOUR_MS, hold } from '../support/pruned-archive.ts'
import { Random } from '../support/workload.ts'

describe('a random history under a retention', () => {
  it.each([1, 2, 3])(
    'keeps every point that the retention promises, and says of everything else that it expired (seed %i)',
    async (seed) => {
      const random = new Random(seed)
      const retention = { all: 6 * HOUR_MS, hourly: 2 * DAY_MS, daily: 5 * DAY_MS }
      const archive = await Archive.open(retention)
      const { writer } = archive
      const held = 'd0/f1'
      await archive.send()
      await archive.prune.hold(hold('held', held))
      const pool = Array.from({ length: 40 }, () => random.bytes(1000))
      for (let d = 0; d < 4; d++) writer.put(`d${d}`, directoryVersion())
      const heldVersions: [Position, RelativePath][] = []
      const marks = new Map<string, Position>()
      let pruned = 0
      for (let hour = 0; hour < 24 * 6; hour++) {
        for (let step = random.below(6); step > 0; step--) {
          const path = `d${random.below(4)}/f${random.below(6)}` as RelativePath
          const there = archive.truth(writer.end)
          const action = random.below(10)
          if (action === 0 && there.has(path)) writer.remove(path)
          else if (action === 1 && there.has(path)) writer.rename(path, `d${random.below(4)}/r${random.below(3)}`)
          else {
            const parts = Array.from(
              { length: 1 + random.below(4) },
              () => (random.below(3) === 0 ? random.pick(pool) : undefined) ?? random.bytes(1000),
            )
            writer.file(path, Buffer.concat(parts))
            if (path === held) heldVersions.push([writer.end, path])
          }
        }
        if (hour % 5 === 0) {
          const name = `mark ${random.below(6)}`
          writer.append({ kind: 'mark', volume: VOLUME, name })
          marks.set(name, writer.end)
        }
        await archive.hour()
        if (hour % 20 === 19) {
          pruned += (await archive.prune.run()).retired
          archive.store.repository.abandonOpenFiles()
          if (random.below(2) === 0) await archive.restart()
        }
      }
      await archive.pruneAll()
      expect(pruned).toBeGreaterThan(10)
      const nowMs = archive.store.wallMs ?? 0
      const isPromised = (i: number): boolean => {
        const point = archive.points[i]
        const before = archive.points[i - 1]
        if (point === undefined) return false
        const ageMs = nowMs - point.wallMs
        const isDay = before === undefined || Math.floor(before.wallMs / DAY_MS) !== Math.floor(point.wallMs / DAY_MS)
        return ageMs <= retention.hourly || (isDay && ageMs <= retention.daily)
      }
      const found = { promised: 0, expired: 0 }
      for (const [i, { position }] of archive.points.entries()) {
        expect(await archive.listed(position)).toEqual(archive.truth(position))
        const absent = await archive.absent(position)
        if (isPromised(i)) {
          expect(absent, `${i}`).toEqual(new Map())
          found.promised += 1
        }
        for (const reason of absent.values()) expect(reason).toBe('expired')
        found.expired += absent.size
      }
      // Every record of the window, not its hours alone.
      const recent = archive.points.find(({ wallMs }) => nowMs - wallMs <= retention.all)?.position ?? writer.end
      for (let { seq } = recent; seq <= writer.end.seq; seq++) expect(await archive.absent({ epoch: 1, seq })).toEqual(new Map())
      for (const [position, path] of heldVersions) expect((await archive.absent(position)).has(path)).toBe(false)
      // What was there when a name was given last.
      for (const [name, position] of marks) expect(await archive.absent(position), name).toEqual(new Map())
      expect(found.promised).toBeGreaterThanOrEqual(48)
      expect(found.expired).toBeGreaterThan(100)
      await archive.expectWhole()
      await archive.expectRebuilt()
    },
    120_000,
  )
})
