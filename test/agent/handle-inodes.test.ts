import { closeSync, openSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { filesystemId, type HandleKey, handleKey } from '../../agent/watch/fanotify-calls.ts'
import { HandleInodes } from '../../agent/watch/handle-inodes.ts'
import { canMount, FILESYSTEM_KINDS, ImageFilesystem } from '../support/image-filesystem.ts'
import { scratchDirectory } from '../support/scratch.ts'

const FILESYSTEM = 'ext4 here'
const INO32 = 0x01
const FIRST_INODES = [11n, 12n, 4_000_000_000n, 14n]

/** As name_to_handle_at(2) gives it. */
function handle(type: number, inode: bigint, filesystem = FILESYSTEM): HandleKey {
  const bytes = Buffer.alloc(16)
  bytes.writeUInt32LE(8, 0)
  bytes.writeInt32LE(type, 4)
  bytes.writeUInt32LE(Number(inode), 8)
  bytes.writeUInt32LE(0xdeadbeef, 12)
  return filesystem.slice(0, 8) + bytes.toString('latin1')
}

describe('inode numbers in handles', () => {
  it('are believed when the filesystem has said the same of several', () => {
    const inodes = new HandleInodes()
    for (const inode of FIRST_INODES) {
      expect(inodes.told(handle(INO32, 77n))).toBeUndefined()
      inodes.learn(handle(INO32, inode), inode)
      // The same one once more says nothing new.
      inodes.learn(handle(INO32, inode), inode)
    }
    expect(inodes.told(handle(INO32, 77n))).toBe(77n)
    expect(inodes.told(handle(INO32, 77n, 'another one'))).toBeUndefined()
  })

  it('are never believed where it said something else, however often they agree afterwards', () => {
    const inodes = new HandleInodes()
    for (const inode of FIRST_INODES.slice(1)) inodes.learn(handle(INO32, inode), inode)
    inodes.learn(handle(INO32, 5n), 6n)
    for (const inode of FIRST_INODES) inodes.learn(handle(INO32, inode), inode)
    expect(inodes.told(handle(INO32, 77n))).toBeUndefined()
  })

  it('are not looked for in handles of a kind that is not known, or that are cut short', () => {
    const inodes = new HandleInodes()
    for (const inode of FIRST_INODES) {
      inodes.learn(handle(0x33, inode), inode)
      inodes.learn(handle(INO32, inode).slice(0, 18), inode)
    }
    expect(inodes.told(handle(0x33, 77n))).toBeUndefined()
    expect(inodes.told(handle(INO32, 77n).slice(0, 18))).toBeUndefined()
  })

  it.skipIf(!canMount).each(FILESYSTEM_KINDS)('are those of the files on %s', (kind) => {
    const filesystem = ImageFilesystem.make(kind, 512 << 20, scratchDirectory())
    onTestFinished(() => filesystem.unmount())
    const root = openSync(filesystem.at, 'r')
    const id = filesystemId(root)
    closeSync(root)
    const inodes = new HandleInodes()
    const files = Array.from({ length: 50 }, (_, i) => join(filesystem.at, `f${i}`))
    let told = 0
    for (const file of files) {
      writeFileSync(file, '')
      const key = handleKey(id, file) ?? ''
      const { ino } = statSync(file, { bigint: true })
      const inode = inodes.told(key)
      if (inode === undefined) inodes.learn(key, ino)
      else expect(inode).toBe(ino)
      told += inode === undefined ? 0 : 1
    }
    expect(told).toBe(files.length - FIRST_INODES.length)
  })
})
