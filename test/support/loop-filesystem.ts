/** A filesystem of the kind a test asks for, in an image that goes away with the test; takes root. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { scratchDirectory } from './scratch.ts'

/** The smallest that mkfs.xfs makes; the image is sparse. */
const IMAGE_BYTES = 320 << 20

/** Where it is mounted. */
export function loopFilesystem(kind: 'xfs' | 'btrfs' | 'ext4'): string {
  const directory = scratchDirectory()
  const image = join(directory, 'disk')
  const at = join(directory, 'mounted')
  writeFileSync(image, '')
  truncateSync(image, IMAGE_BYTES)
  mkdirSync(at)
  onTestFinished(() => {
    spawnSync('umount', [at])
  })
  for (const [command, ...args] of [
    [`mkfs.${kind}`, '-q', image],
    ['mount', '-o', 'loop', image, at],
  ] as const) {
    const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`${command}: ${stderr}`)
  }
  if (statSync(at).dev === statSync(directory).dev) throw new Error('the filesystem is not mounted')
  return at
}
