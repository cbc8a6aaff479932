/**
 * Which directory each volume is: its inode and when it was made, in one small file that is written durably.
 *
 * An inode number alone is no identity: the root of every ext4 has the same one, so another disk, or the empty directory on
 * which the disk is mounted, could pass for the volume. The time of birth tells them apart (statx(2), stx_btime).
 * Invariant: what is noted here changes only when a directory is taken for the first time, or the administrator confirmed
 * another one. It prevents an unmounted archive from being recorded as deleted, also after the loss of the state.
 */
import { z } from 'zod'
import { readIfPresent, writeFileDurably } from '../shared/files.ts'
import type { Label } from '../shared/path.ts'

export interface RootIdentity {
  readonly inode: bigint
  /** ns since 1970; 0 where the filesystem does not keep it. */
  readonly birthNs: bigint
}

const DECIMAL = z.string().regex(/^\d+$/)
const FILE = z.record(z.string(), z.object({ inode: DECIMAL, birthNs: DECIMAL }))

export class VolumeRoots {
  readonly #file: string
  readonly #known: Map<string, RootIdentity>

  /** A file that is damaged counts as absent: then what the state says of the root must do. */
  constructor(file: string) {
    this.#file = file
    this.#known = read(file)
  }

  of(volume: Label): RootIdentity | undefined {
    return this.#known.get(volume)
  }

  /** @throws io, space */
  note(volume: Label, identity: RootIdentity): void {
    if (isSameRoot(this.#known.get(volume), identity)) return
    this.#known.set(volume, identity)
    const entries = [...this.#known].map(([name, { inode, birthNs }]) => [name, { inode: String(inode), birthNs: String(birthNs) }])
    writeFileDurably(this.#file, `${JSON.stringify(Object.fromEntries(entries))}\n`)
  }
}

/** Where one of them does not know its birth, the inode alone decides. */
export function isSameRoot(known: RootIdentity | undefined, now: RootIdentity): boolean {
  if (known === undefined || known.inode !== now.inode) return false
  return known.birthNs === now.birthNs || known.birthNs === 0n || now.birthNs === 0n
}

function read(file: string): Map<string, RootIdentity> {
  const parsed = FILE.safeParse(parseJson(readIfPresent(file)?.toString('utf8') ?? ''))
  if (!parsed.success) return new Map()
  return new Map(
    Object.entries(parsed.data).map(([name, { inode, birthNs }]) => [name, { inode: BigInt(inode), birthNs: BigInt(birthNs) }]),
  )
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
