/**
 * Real filesystems of a given kind and size for one test: an image file, its filesystem, a loop mount.
 *
 * Invariant: what a test fills, breaks or unmounts is a filesystem made here, proven by its device number, and it is gone
 * when the test ends. It prevents a destructive test from harming the machine that runs it, and a machine from running
 * out of loop devices.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { scratchDirectory } from './scratch.ts'

export type FilesystemKind = 'ext4' | 'xfs' | 'btrfs'

export const FILESYSTEM_KINDS = ['ext4', 'xfs', 'btrfs'] as const satisfies readonly FilesystemKind[]

/** How a filesystem is made, and the least size that its mkfs accepts. */
const MAKERS: Readonly<Record<FilesystemKind, { readonly command: readonly [string, ...string[]]; readonly bytesMin: number }>> = {
  // A journal that commits lazily and no reserved blocks: these filesystems live for seconds.
  'ext4': { command: ['mkfs.ext4', '-q', '-F', '-m', '0'], bytesMin: 16 << 20 },
  'xfs': { command: ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'], bytesMin: 320 << 20 },
  'btrfs': { command: ['mkfs.btrfs', '-q', '-f'], bytesMin: 256 << 20 },
}

/** At most so many are made by one test file: a fault in a loop must not use up the machine. */
const FILESYSTEMS_MAX = 60

/** Without root there are no mounts; where CI is set a skipped test is a failure. */
export const canMount = process.getuid?.() === 0

let made = 0

/** @throws when the command fails, with what it said */
export function command(name: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(name, args, { encoding: 'utf8', maxBuffer: 256 << 20 })
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${error?.message ?? stderr}`)
  return stdout
}

export class Filesystem {
  readonly kind: FilesystemKind
  /** Where it is mounted. */
  readonly at: string
  readonly #image: string
  #isMounted = false

  private constructor(kind: FilesystemKind, image: string, at: string) {
    this.kind = kind
    this.#image = image
    this.at = at
  }

  /** A new and empty one, mounted; unmounted when the test ends. */
  static make(kind: FilesystemKind, bytes: number): Filesystem {
    if (++made > FILESYSTEMS_MAX) throw new Error(`one test file makes more than ${FILESYSTEMS_MAX} filesystems`)
    const directory = scratchDirectory()
    const image = join(directory, 'image')
    const at = join(directory, 'mounted')
    writeFileSync(image, '')
    truncateSync(image, Math.max(bytes, MAKERS[kind].bytesMin))
    mkdirSync(at)
    const [name, ...options] = MAKERS[kind].command
    command(name, ...options, image)
    const filesystem = new Filesystem(kind, image, at)
    onTestFinished(() => filesystem.unmount())
    filesystem.mount()
    return filesystem
  }

  mount(): void {
    // noatime: reading a tree to compare it must not change it.
    command('mount', '-o', 'loop,noatime', this.#image, this.at)
    this.#isMounted = true
    this.prove()
  }

  /** Gone from the tree of directories at once; from the machine when nobody uses it any more. */
  unmount(): void {
    if (!this.#isMounted) return
    this.prove()
    command('umount', '-l', this.at)
    this.#isMounted = false
  }

  /** @throws when what is mounted here is not a filesystem of this test's own */
  prove(): void {
    const found = command('stat', '-f', '-c', '%T', this.at).trim()
    const expected = { 'ext4': 'ext2/ext3', 'xfs': 'xfs', 'btrfs': 'btrfs' }[this.kind]
    const here = statSync(this.at).dev
    if (found !== expected || here === statSync(tmpdir()).dev || here === statSync(join(this.at, '..')).dev)
      throw new Error(`${this.at} is not the ${this.kind} filesystem that this test made`)
  }
}
