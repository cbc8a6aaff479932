/** A small filesystem of its own, on a loop device, for as long as the test runs. Needs root. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { scratchDirectory } from './scratch.ts'

/** @returns where it is mounted */
export function mountDisk(type: 'xfs' | 'ext4' | 'btrfs', bytes: number): string {
  const directory = scratchDirectory()
  const image = join(directory, 'disk')
  const at = join(directory, 'mounted')
  writeFileSync(image, '')
  truncateSync(image, bytes)
  mkdirSync(at)
  run(`mkfs.${type}`, '-q', image)
  run('mount', '-o', 'loop', image, at)
  onTestFinished(() => {
    run('umount', '-l', at)
  })
  return at
}

function run(command: string, ...args: string[]): void {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command}: ${error?.message ?? stderr}`)
}
