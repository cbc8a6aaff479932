/** A disk of a few megabytes with a real filesystem, so that filling it, or making it read-only, harms nobody. Needs root. */
import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, openSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { scratchDirectory } from './scratch.ts'

function run(command: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`)
}

export class SmallDisk {
  readonly directory: string
  readonly #filler: string

  /** Mounted at `directory`, which is made; it goes away with the test. */
  constructor(bytes: number, directory = join(scratchDirectory(), 'disk')) {
    this.directory = directory
    this.#filler = join(directory, 'filler')
    mkdirSync(directory, { recursive: true })
    const image = join(scratchDirectory(), 'image')
    const fd = openSync(image, 'w')
    ftruncateSync(fd, bytes)
    closeSync(fd)
    run('mkfs.ext4', '-q', '-F', '-m', '0', image)
    run('mount', '-o', 'loop', image, directory)
    onTestFinished(() => {
      // Whoever still has files open there is on the way out; the image is gone with the last of them.
      spawnSync('umount', ['-l', directory])
    })
    if (statSync(directory).dev === statSync(tmpdir()).dev) throw new Error('the small disk is not mounted')
  }

  /** Takes every block that is free. */
  fill(): void {
    const fd = openSync(this.#filler, 'a')
    try {
      for (const piece of [Buffer.alloc(1 << 20, 1), Buffer.alloc(4096, 1)]) writeUntilFull(fd, piece)
    } finally {
      closeSync(fd)
    }
  }

  free(): void {
    rmSync(this.#filler)
  }

  /** False while somebody has a file open for writing. */
  remount(mode: 'ro' | 'rw'): boolean {
    return spawnSync('mount', ['-o', `remount,${mode}`, this.directory]).status === 0
  }
}

function writeUntilFull(fd: number, piece: Buffer): void {
  for (;;) {
    try {
      writeSync(fd, piece)
    } catch {
      return
    }
  }
}
