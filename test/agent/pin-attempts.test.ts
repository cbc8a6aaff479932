import { closeSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { expect, it, onTestFinished } from 'vitest'
import type { VolumeRoot } from '../../agent/file-stat.ts'
import { pauseWhileBusy, placedAgain } from '../../agent/pin-attempts.ts'
import { type Pin, Pins } from '../../agent/pins.ts'
import { Renames } from '../../agent/renames.ts'
import { path, VOLUME } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

/** A file that was closed in `d`, which was renamed to `e`, of which an event has told. */
function opened() {
  const directory = scratchDirectory()
  const { dev, ino } = statSync(directory, { bigint: true })
  const root: VolumeRoot = { directory, device: dev, inode: ino }
  mkdirSync(`${directory}/d`)
  writeFileSync(`${directory}/d/new`, 'x')
  const fd = openSync(`${directory}/d/new`, 'r')
  onTestFinished(() => closeSync(fd))
  renameSync(`${directory}/d`, `${directory}/e`)
  const pin: Pin = { volume: VOLUME, path: path('d/new'), fd, writer: undefined, release: () => {}, attempts: 1, busy: 0 }
  return { directory, root, pin, renames: new Renames() }
}

it('a version in a renamed directory is tried again when the rename is recorded, and not before', async () => {
  const { root, pin, renames } = opened()
  const rename = renames.add(VOLUME, path('d'), path('e'))
  let isPlaced = false
  const placing = (async () => {
    await placedAgain(pin, root, renames)
    isPlaced = true
  })()
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(isPlaced).toBe(false)
  renames.recorded(VOLUME, path('d'), path('e'))
  renames.remove(rename)
  await placing
  expect(pin.path).toBe('e/new')
})

it('one that has lost its name waits for no rename: the end of its directory may wait for it', async () => {
  const { directory, root, pin, renames } = opened()
  renames.add(VOLUME, path('d'), path('e'))
  rmSync(`${directory}/e`, { recursive: true })
  await placedAgain(pin, root, renames)
  expect(pin.path).toBe('e/new')
})

it('one of a volume that is lost keeps the path that it had', async () => {
  const { pin, renames } = opened()
  await placedAgain(pin, undefined, renames)
  expect(pin.path).toBe('d/new')
})

it('one that somebody writes is tried for a quarter of a second, and less where a later one waits', () => {
  const all = (hasLater: boolean): number[] => {
    const pins = new Pins()
    const versions = ['f', 'g', ...(hasLater ? ['f'] : [])].map((name): Pin => {
      return { volume: VOLUME, path: path(name), fd: 0, writer: undefined, release: () => {}, attempts: 0, busy: 0 }
    })
    for (const one of versions) pins.add(one)
    const [pin] = pins.take(1)
    if (pin === undefined) throw new Error('there is one')
    const pauses: number[] = []
    for (let next = pauseWhileBusy(pin, pins); next !== undefined; next = pauseWhileBusy(pin, pins)) pauses.push(next)
    return pauses
  }
  expect(all(false)).toEqual([2, 4, 8, 16, 32, 64, 128])
  expect(all(true)).toEqual([2, 4, 8, 16])
})
