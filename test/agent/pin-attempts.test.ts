import { closeSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { expect, it, onTestFinished } from 'vitest'
import type { VolumeRoot } from '../../agent/file-stat.ts'
import { placedAgain } from '../../agent/pin-attempts.ts'
import type { Pin } from '../../agent/pins.ts'
import { Renames } from '../../agent/renames.ts'
import { Waiters } from '../../agent/waiting.ts'
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
  const pin: Pin = { volume: VOLUME, path: path('d/new'), fd, writer: undefined, release: () => {}, attempts: 1 }
  const [renames, waiters] = [new Renames(), new Waiters()]
  const moving = { renames, progressed: (signal: AbortSignal) => waiters.wait(signal) }
  return { directory, root, pin, renames, waiters, moving }
}

it('a version in a renamed directory is tried again when the rename is recorded, and not before', async () => {
  const { root, pin, renames, waiters, moving } = opened()
  const rename = renames.add(VOLUME, path('d'), path('e'))
  let isPlaced = false
  const placing = (async () => {
    await placedAgain(pin, root, moving)
    isPlaced = true
  })()
  for (let i = 0; i < 3; i++) {
    waiters.wake()
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(isPlaced).toBe(false)
  renames.recorded(VOLUME, path('d'), path('e'))
  renames.remove(rename)
  waiters.wake()
  await placing
  expect(pin.path).toBe('e/new')
})

it('one that has lost its name waits for no rename: the end of its directory may wait for it', async () => {
  const { directory, root, pin, renames, moving } = opened()
  renames.add(VOLUME, path('d'), path('e'))
  rmSync(`${directory}/e`, { recursive: true })
  await placedAgain(pin, root, moving)
  expect(pin.path).toBe('e/new')
})

it('one of a volume that is lost keeps the path that it had', async () => {
  const { pin, moving } = opened()
  await placedAgain(pin, undefined, moving)
  expect(pin.path).toBe('d/new')
})
