/**
 * A random workload on a directory, as a PACS, its database and its administrator would make it. Deterministic by seed.
 */
import {
  appendFileSync,
  chmodSync,
  chownSync,
  constants,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { libc } from '../../shared/libc.ts'

const NS_PER_S = 1_000_000_000

/** Small, fast, reproducible (mulberry32). */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** At least 0, below `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let x = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return ((x ^ (x >>> 14)) >>> 0) % limit
  }

  pick<Item>(items: readonly Item[]): Item | undefined {
    return items[this.below(Math.max(1, items.length))]
  }

  bytes(length: number): Buffer {
    const words = new Uint32Array(Math.ceil(length / 4))
    for (let i = 0; i < words.length; i++) words[i] = this.below(2 ** 32)
    return Buffer.from(words.buffer, 0, length)
  }
}

const OPERATIONS = [
  'create',
  'create',
  'create',
  'overwrite',
  'append',
  'truncate',
  'rename',
  'rename-directory',
  'delete',
  'delete-directory',
  'mkdir',
  'symlink',
  'hardlink',
  'chmod',
  'xattr',
] as const
type Operation = (typeof OPERATIONS)[number] | 'owner' | 'time' | 'directory-metadata' | 'fifo'

/** Also what only root may do, and what is restored on request only. */
export const EVERY_OPERATION: readonly Operation[] = [...OPERATIONS, 'owner', 'time', 'directory-metadata', 'fifo']

export class Workload {
  readonly #root: Buffer
  readonly #random: Random
  readonly #operations: readonly Operation[]
  #count = 0

  constructor(root: string, seed: number, operations: readonly Operation[] = OPERATIONS) {
    this.#root = Buffer.from(root)
    this.#random = new Random(seed)
    this.#operations = operations
  }

  /** Does one operation. @returns what it was */
  step(): Operation {
    const operation = this.#random.pick(this.#operations) ?? 'create'
    this.#do(operation)
    return operation
  }

  #at(path: string): Buffer {
    return Buffer.concat([this.#root, Buffer.from(`/${path}`, 'latin1')])
  }

  /** Paths of a kind, as byte strings. */
  #list(kind: 'file' | 'directory'): string[] {
    const found: string[] = []
    const visit = (path: string): void => {
      for (const entry of readdirSync(path === '' ? this.#root : this.#at(path), { withFileTypes: true, encoding: 'buffer' })) {
        const child = path === '' ? entry.name.toString('latin1') : `${path}/${entry.name.toString('latin1')}`
        if (entry.isDirectory()) {
          if (kind === 'directory') found.push(child)
          visit(child)
        } else if (kind === 'file' && entry.isFile()) {
          found.push(child)
        }
      }
    }
    visit('')
    return found.sort()
  }

  #newName(): string {
    const count = ++this.#count
    const odd = this.#random.below(20)
    if (odd === 0) return `caf\xe9 ${count}`
    if (odd === 1) return `line\n${count}`
    if (odd === 2) return `\xc3\xa9t\xc3\xa9-${count}`
    return `f${count}`
  }

  #newPlace(): string {
    const directory = this.#random.pick(['', ...this.#list('directory')]) ?? ''
    return directory === '' ? this.#newName() : `${directory}/${this.#newName()}`
  }

  #content(): Buffer {
    const size = this.#random.below(10)
    if (size === 0) return Buffer.alloc(0)
    if (size === 9) return Buffer.alloc(300_000 + this.#random.below(900_000), this.#random.bytes(4096))
    return this.#random.bytes(1 + this.#random.below(20_000))
  }

  #do(operation: Operation): void {
    const file = this.#random.pick(this.#list('file'))
    const directory = this.#random.pick(this.#list('directory'))
    switch (operation) {
      case 'create':
        writeFileSync(this.#at(this.#newPlace()), this.#content())
        return
      case 'mkdir':
        mkdirSync(this.#at(`${this.#newPlace()}/${this.#newName()}`), { recursive: true })
        return
      case 'symlink':
        symlinkSync(Buffer.from(`../${this.#newName()}`, 'latin1'), this.#at(this.#newPlace()))
        return
      case 'overwrite':
        if (file !== undefined) writeFileSync(this.#at(file), this.#content())
        return
      case 'append':
        if (file !== undefined) appendFileSync(this.#at(file), this.#random.bytes(1000))
        return
      case 'truncate':
        if (file !== undefined) truncateSync(this.#at(file), Math.floor(lstatSync(this.#at(file)).size / 2))
        return
      case 'rename':
        if (file !== undefined)
          renameSync(
            this.#at(file),
            this.#at(this.#random.below(4) === 0 ? (this.#random.pick(this.#list('file')) ?? file) : this.#newPlace()),
          )
        return
      case 'rename-directory': {
        const to = this.#newPlace()
        if (directory !== undefined && !`${to}/`.startsWith(`${directory}/`)) renameSync(this.#at(directory), this.#at(to))
        return
      }
      case 'delete':
        if (file !== undefined) unlinkSync(this.#at(file))
        return
      case 'delete-directory':
        // Seldom: else nothing would ever grow.
        if (directory !== undefined && this.#random.below(3) === 0) rmSync(this.#at(directory), { recursive: true })
        return
      case 'hardlink': {
        const to = this.#newPlace()
        if (file !== undefined && !existsSync(this.#at(to))) linkSync(this.#at(file), this.#at(to))
        return
      }
      case 'chmod':
        if (file !== undefined) chmodSync(this.#at(file), 0o600 + this.#random.below(0o100))
        return
      case 'xattr':
        if (file !== undefined) libc?.setXattr(this.#at(file).toString('latin1'), 'user.pacs', this.#random.bytes(20).toString('latin1'))
        return
      case 'owner':
        if (file !== undefined) chownSync(this.#at(file), this.#random.below(3000), this.#random.below(3000))
        return
      case 'time': {
        const [seconds, nanoseconds] = [this.#random.below(2 ** 31), this.#random.below(NS_PER_S)]
        const path = this.#random.below(3) === 0 ? directory : file
        if (path !== undefined)
          libc?.setModified(this.#at(path).toString('latin1'), BigInt(seconds) * BigInt(NS_PER_S) + BigInt(nanoseconds))
        return
      }
      case 'directory-metadata':
        if (directory === undefined) return
        chmodSync(this.#at(directory), 0o700 + this.#random.below(0o100))
        libc?.setXattr(this.#at(directory).toString('latin1'), 'user.study', this.#random.bytes(20).toString('latin1'))
        return
      case 'fifo':
        libc?.makeNode(this.#at(this.#newPlace()).toString('latin1'), constants.S_IFIFO | 0o640, 0n)
        return
    }
  }
}
