/**
 * A real filesystem of a given kind and size: an image file, its filesystem, a loop mount.
 *
 * Invariant: what is filled, broken or unmounted through it is a filesystem made here, proven by its device number. It
 * prevents a destructive test from harming the machine that runs it.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export type FilesystemKind = 'ext4' | 'xfs' | 'btrfs'

export const FILESYSTEM_KINDS = ['ext4', 'xfs', 'btrfs'] as const satisfies readonly FilesystemKind[]

/** How a filesystem is made, and the least size that its mkfs accepts. */
const MAKERS: Readonly<Record<FilesystemKind, { readonly command: readonly [string, ...string[]]; readonly bytesMin: number }>> = {
  'ext4': { command: ['mkfs.ext4', '-q', '-F', '-m', '0'], bytesMin: 16 << 20 },
  'xfs': { command: ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'], bytesMin: 320 << 20 },
  'btrfs': { command: ['mkfs.btrfs', '-q', '-f'], bytesMin: 256 << 20 },
}

/** At most so many are made by one process: a fault in a loop must not use up the machine. */
const FILESYSTEMS_MAX = 60

/** Without root there are no mounts. */
export const canMount = process.getuid?.() === 0

let made = 0

/** @throws when the command fails, with what it said */
export function command(name: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(name, args, { encoding: 'utf8', maxBuffer: 256 << 20 })
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${error?.message ?? stderr}`)
  return stdout
}

export class ImageFilesystem {
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

  /** A new and empty one, mounted; image and mount point lie in a directory of the caller's. */
  static make(kind: FilesystemKind, bytes: number, directory: string): ImageFilesystem {
    if (++made > FILESYSTEMS_MAX) throw new Error(`one process makes more than ${FILESYSTEMS_MAX} filesystems`)
    const image = join(directory, 'image')
    const at = join(directory, 'mounted')
    writeFileSync(image, '')
    truncateSync(image, Math.max(bytes, MAKERS[kind].bytesMin))
    mkdirSync(at)
    const [name, ...options] = MAKERS[kind].command
    command(name, ...options, image)
    const filesystem = new ImageFilesystem(kind, image, at)
    filesystem.mount()
    return filesystem
  }

  mount(): void {
    // noatime: reading a tree to compare it must not change it.
    command('mount', '-o', 'loop,noatime', this.#image, this.at)
    this.#isMounted = true
    this.prove()
  }

  /** Flips a bit of the only place of the disk that holds these bytes, as a failing disk does: behind the filesystem's back. */
  decay(file: string, bytes: Buffer): void {
    this.decayUnseen(file, bytes)
    // Nothing of it in the page cache: the next read is of the disk.
    command('dd', `if=${file}`, 'iflag=nocache', 'count=0', 'status=none')
  }

  /** The same of what the page cache has as it was: as after a write that the disk refused, of which memory knows nothing any more. */
  decayUnseen(file: string, bytes: Buffer): void {
    this.prove()
    command('sync', '-f', file)
    const image = openSync(this.#image, 'r+')
    try {
      const at = placeOf(image, bytes)
      writeSync(image, Buffer.from([(bytes[0] ?? 0) ^ 1]), 0, 1, at)
    } finally {
      closeSync(image)
    }
  }

  /** Gone from the tree of directories at once; from the machine when nobody uses it any more. */
  unmount(): void {
    if (!this.#isMounted) return
    this.prove()
    command('umount', '-l', this.at)
    this.#isMounted = false
  }

  /** @throws when what is mounted there is not the filesystem that was made here */
  prove(): void {
    const found = command('stat', '-f', '-c', '%T', this.at).trim()
    const expected = { 'ext4': 'ext2/ext3', 'xfs': 'xfs', 'btrfs': 'btrfs' }[this.kind]
    const here = statSync(this.at).dev
    if (found !== expected || here === statSync(tmpdir()).dev || here === statSync(join(this.at, '..')).dev)
      throw new Error(`${this.at} is not the ${this.kind} filesystem that was made here`)
  }
}

/** Where these bytes, which begin at a sector, are. */
function placeOf(fd: number, bytes: Buffer): number {
  const window = Buffer.alloc(1 << 20)
  for (let base = 0; ; base += window.length) {
    const got = readSync(fd, window, 0, window.length, base)
    const at = window.subarray(0, got).indexOf(bytes)
    if (at >= 0) return base + at
    if (got < window.length) throw new Error('the disk does not hold these bytes')
  }
}
