/**
 * One writer process of a storm: seeded operations on a tree of its own, at full speed, and on a few shared names.
 *
 *     node storm-writer.ts '{"root": "...", "writer": 0, "operations": 5000, "seed": 1}'
 *
 * It knows from its own model what exists, so that no call is spent on looking; the last line of its output is what it did.
 * Invariant: every operation of its own tree succeeds, or the process fails. It prevents a storm that quietly did half.
 */
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { Random } from './workload.ts'

interface Node {
  parent: Node | undefined
  name: string
  readonly isDirectory: boolean
  children: number
  isAlive: boolean
}

const DEPTH_MAX = 12
const SHARED_NAMES = 40
const { root, writer, operations, seed } = JSON.parse(process.argv[2] ?? '{}') as {
  root: string
  writer: number
  operations: number
  seed: number
}

const random = new Random(seed * 7919 + writer)
const content = random.bytes(16_384)
const directories: Node[] = []
const files: Node[] = []
const done = new Map<string, number>()
let names = 0

function pathOf(node: Node): string {
  return node.parent === undefined ? join(root, node.name) : `${pathOf(node.parent)}/${node.name}`
}

function depthOf(node: Node): number {
  return node.parent === undefined ? 1 : 1 + depthOf(node.parent)
}

function isBelow(node: Node, ancestor: Node): boolean {
  for (let at: Node | undefined = node; at !== undefined; at = at.parent) if (at === ancestor) return true
  return false
}

function add(parent: Node | undefined, name: string, isDirectory: boolean): Node {
  const node = { parent, name, isDirectory, children: 0, isAlive: true }
  if (parent !== undefined) parent.children += 1
  ;(isDirectory ? directories : files).push(node)
  return node
}

function drop(node: Node): void {
  node.isAlive = false
  if (node.parent !== undefined) node.parent.children -= 1
}

/** A living one; the dead are swept out as they are met. */
function pick(among: Node[]): Node | undefined {
  while (among.length > 0) {
    const at = random.below(among.length)
    const node = among[at]
    if (node?.isAlive === true) return node
    const last = among.pop()
    if (last !== undefined && at < among.length) among[at] = last
  }
  return undefined
}

function write(path: string, flags: string): void {
  const fd = openSync(path, flags, 0o644)
  for (let i = 1 + random.below(3); i > 0; i--) {
    const from = random.below(8192)
    writeSync(fd, content, from, 64 + random.below(2000))
  }
  closeSync(fd)
}

function move(node: Node, to: Node, name: string): void {
  const from = pathOf(node)
  if (node.parent !== undefined) node.parent.children -= 1
  node.parent = to
  to.children += 1
  node.name = name
  renameSync(from, pathOf(node))
}

/** Empties a directory that holds a few files, and removes it. */
function removeDirectory(directory: Node): boolean {
  if (directory.parent === undefined || directory.parent.parent === undefined || directory.children > 6) return false
  const inside = files.filter((file) => file.isAlive && file.parent === directory)
  if (inside.length !== directory.children) return false
  for (const file of inside) {
    unlinkSync(pathOf(file))
    drop(file)
  }
  rmdirSync(pathOf(directory))
  drop(directory)
  return true
}

/** Several processes save, and remove, the same few names. */
function touchShared(): void {
  const name = join(root, 'shared', `s${random.below(SHARED_NAMES)}`)
  if (random.below(4) > 0) {
    const temporary = `${name}.tmp${writer}`
    write(temporary, 'w')
    renameSync(temporary, name)
    return
  }
  try {
    unlinkSync(name)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
  }
}

function makePath(directory: Node): void {
  let at = directory
  for (let levels = 1 + random.below(4); levels > 0; levels--) {
    at = add(at, `m${++names}`, true)
    mkdirSync(pathOf(at))
    if (random.below(2) === 0) write(pathOf(add(at, `q${++names}`, false)), 'w')
  }
  write(pathOf(add(at, `z${++names}`, false)), 'w')
}

/** @returns what was done; nothing where the dice named what cannot be */
function operate(): string | undefined {
  const die = random.below(100)
  const directory = pick(directories)
  const file = pick(files)
  if (directory === undefined) throw new Error('no directory is left')
  if (die < 22 || file === undefined) {
    write(pathOf(add(directory, `n${++names}.dcm`, false)), 'w')
    return 'create'
  }
  if (die < 40) {
    // In place or from nothing, both at the same inode.
    write(pathOf(file), random.below(2) === 0 ? 'r+' : 'w')
    return 'rewrite'
  }
  if (die < 53) {
    const path = pathOf(file)
    write(`${path}.tmp`, 'w')
    renameSync(`${path}.tmp`, path)
    return 'save'
  }
  if (die < 62) {
    move(file, directory, `r${++names}`)
    return 'rename'
  }
  if (die < 71) {
    unlinkSync(pathOf(file))
    drop(file)
    return 'delete'
  }
  if (die < 78) {
    if (depthOf(directory) > DEPTH_MAX) return undefined
    makePath(directory)
    return 'mkdir -p'
  }
  if (die < 82) {
    const to = pick(directories)
    if (to === undefined || directory.parent === undefined || isBelow(to, directory) || depthOf(to) > DEPTH_MAX) return undefined
    move(directory, to, `e${++names}`)
    return 'rename directory'
  }
  if (die < 85) return removeDirectory(directory) ? 'rmdir' : undefined
  if (die < 88) {
    chmodSync(pathOf(file), random.below(2) === 0 ? 0o600 : 0o640)
    return 'chmod'
  }
  if (die < 91) {
    linkSync(pathOf(file), pathOf(add(directory, `h${++names}`, false)))
    return 'link'
  }
  if (die < 93) {
    symlinkSync(`../t${names}`, join(pathOf(directory), `l${++names}`))
    // Not among the files: nothing but its directory's rename touches it again, and that directory is never removed.
    directory.children += 1
    return 'symlink'
  }
  if (die < 95) {
    truncateSync(pathOf(file), random.below(3000))
    return 'truncate'
  }
  touchShared()
  return 'shared'
}

mkdirSync(join(root, 'shared'), { recursive: true })
const own = add(undefined, `w${writer}`, true)
mkdirSync(pathOf(own), { recursive: true })
for (let i = 0; i < 20; i++) mkdirSync(pathOf(add(own, `d${i}`, true)))
const started = performance.now()
for (let count = 0; count < operations; ) {
  const operation = operate()
  if (operation === undefined) continue
  done.set(operation, (done.get(operation) ?? 0) + 1)
  count += 1
}
const living = (nodes: readonly Node[]): number => nodes.filter((node) => node.isAlive).length
process.stdout.write(
  `${JSON.stringify({
    seconds: (performance.now() - started) / 1000,
    done: Object.fromEntries(done),
    files: living(files),
    directories: living(directories),
  })}\n`,
)
