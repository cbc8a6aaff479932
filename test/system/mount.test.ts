/** A past moment as a directory: equal to what was there, by ordinary tools, whole or damaged, and free again however its process ends. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  cpSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { libc } from '../../shared/libc.ts'
import { isWithin, type RelativePath } from '../../shared/path.ts'
import { MountedMoment } from '../support/mounted-moment.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { walkTree } from '../support/tree-walk.ts'
import { type Copy, differences, Truth } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const VOLUME = 'pacs1:images'
const MB = 1 << 20
const MANY = 1000
const LARGE_BYTES = 8 * MB
const READS = 200
const DATA_BEFORE_HOLE = 'data'
const HOLE_END = 4 * MB

const LARGE = new Random(11).bytes(LARGE_BYTES)

const bytesOf = (text: string): Buffer => Buffer.from(text, 'latin1')

/** One of everything that a file can be. */
function fill(source: string): void {
  const at = (name: string): string => join(source, name)
  mkdirSync(at('study'))
  mkdirSync(at('empty'))
  mkdirSync(at('many'))
  writeFileSync(at('study/large.dcm'), LARGE)
  writeFileSync(at('study/small.dcm'), 'small')
  writeFileSync(at('study/nothing.dcm'), '')
  writeFileSync(bytesOf(`${source}/study/not \xff UTF-8\n`), 'its name is bytes')
  symlinkSync(bytesOf('nowhere \xfe'), bytesOf(`${source}/study/link`))
  linkSync(at('study/small.dcm'), at('another name'))
  for (let i = 0; i < MANY; i++) writeFileSync(at(`many/${i}`), `${i}`)
  const sparse = openSync(at('sparse'), 'w')
  writeSync(sparse, DATA_BEFORE_HOLE)
  ftruncateSync(sparse, HOLE_END)
  writeSync(sparse, 'behind the hole', HOLE_END)
  closeSync(sparse)
  writeFileSync(at('owned'), 'of somebody else')
  chownSync(at('owned'), 1234, 5678)
  chmodSync(at('owned'), 0o4750)
  chmodSync(at('empty'), 0o1770)
  libc?.setXattr(at('owned'), 'user.note', 'a value \xff')
  expect(spawnSync('setfacl', ['-m', 'u:4321:r--', at('owned')]).status).toBe(0)
  libc?.setModified(at('study/small.dcm'), 1_234_567_890_123_456_789n)
  libc?.setModified(at('owned'), -86_400_000_000_001n)
}

/** Everything is another thing. */
function change(source: string): void {
  const at = (name: string): string => join(source, name)
  writeFileSync(at('study/large.dcm'), new Random(12).bytes(LARGE_BYTES))
  rmSync(at('another name'))
  rmSync(at('many'), { recursive: true })
  rmSync(at('empty'), { recursive: true })
  writeFileSync(at('empty'), 'a file now')
  chmodSync(at('owned'), 0o600)
  writeFileSync(at('new'), 'new')
}

interface Past {
  readonly site: Site
  /** What was there at the moment. */
  readonly copy: Copy
  /** For --at. */
  readonly at: string
  /** Of the collector. */
  readonly data: readonly string[]
}

async function pastMoment(): Promise<Past> {
  const source = join(scratchDirectory(), 'images')
  mkdirSync(source)
  fill(source)
  const site = await Site.watching({ source })
  const { copy, ms } = new Truth(source).note()
  await until('another millisecond', 5, () => Date.now() > ms + 2 || undefined)
  change(source)
  await site.wait()
  return { site, copy, data: ['--data', site.installation.data], at: new Date(ms).toISOString() }
}

function run(command: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 * MB })
}

function errnoIn(act: () => unknown): string | undefined {
  try {
    act()
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

function sumOf(file: string): string {
  return run('sha256sum', file).stdout.split(' ')[0] ?? ''
}

const MAPPED = `
import hashlib, mmap, sys
with open(sys.argv[1], 'rb') as file:
    print(hashlib.sha256(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).hexdigest())`

/** What a walk from front to back does not try: pieces from anywhere, a mapping, many readers at once. */
async function expectReadable(path: string, content: Buffer): Promise<void> {
  const random = new Random(13)
  const file = openSync(path, 'r')
  for (let i = 0; i < READS; i++) {
    const offset = random.below(content.length)
    const piece = Buffer.alloc(1 + random.below(300_000))
    const length = readSync(file, piece, 0, piece.length, offset)
    expect(piece.subarray(0, length).equals(content.subarray(offset, offset + piece.length)), `at ${offset}`).toBe(true)
  }
  closeSync(file)
  const plain = join(scratchDirectory(), 'plain')
  writeFileSync(plain, content)
  const sum = sumOf(plain)
  expect(run('python3', '-c', MAPPED, path)).toMatchObject({ stdout: `${sum}\n` })
  const readers = Array.from({ length: 8 }, () => spawn('sha256sum', [path], { stdio: ['ignore', 'pipe', 'inherit'] }))
  const told = await Promise.all(readers.map((reader) => once(reader.stdout.setEncoding('utf8'), 'data') as Promise<[string]>))
  expect(told.map(([line]) => line.split(' ')[0])).toEqual(readers.map(() => sum))
}

/** Of a part of a tree, another name of a file may lie outside. */
function withoutLinks(words: readonly string[]): string[] {
  return words.filter((word) => !word.includes(' sameAs: '))
}

async function expectTruth({ site, copy, data, at }: Past): Promise<void> {
  const restored = site.restore(at, { options: ['--setuid'] })
  const { directory } = await MountedMoment.of(VOLUME, '--at', at, ...data)
  expect(differences(copy, walkTree(directory))).toEqual([])
  await expectReadable(join(directory, 'study/large.dcm'), LARGE)
  expect(run('diff', '-r', '--no-dereference', restored, directory)).toMatchObject({ status: 0, stdout: '' })
  expect(readdirSync(join(directory, 'many'))).toHaveLength(MANY)
  expect(lstatSync(join(directory, 'another name')).nlink).toBe(2)
  // Two pages at most, of a file that is as long as a thousand.
  expect(statSync(join(directory, 'sparse')).blocks).toBeLessThanOrEqual(16)
  const copied = join(scratchDirectory(), 'copied')
  expect(run('cp', '--sparse=never', join(directory, 'sparse'), copied).status).toBe(0)
  expect(readFileSync(copied)).toEqual(readFileSync(join(restored, 'sparse')))
  for (const write of [
    () => appendFileSync(join(directory, 'sparse'), 'x'),
    () => mkdirSync(join(directory, 'd')),
    () => unlinkSync(join(directory, 'sparse')),
    () => chmodSync(join(directory, 'sparse'), 0o777),
  ])
    expect(errnoIn(write)).toBe('EROFS')
  expect(errnoIn(() => lstatSync(join(directory, 'new')))).toBe('ENOENT')
}

async function expectFreed({ site, data, at }: Past): Promise<void> {
  const killed = await MountedMoment.of(VOLUME, '--at', at, ...data)
  killed.signal('SIGKILL')
  await killed.ended()
  expect(errnoIn(() => readdirSync(killed.directory))).toBe('ENOTCONN')
  const again = site.installation.try('mount', VOLUME, killed.directory, '--at', at, ...data)
  expect(again).toMatchObject({ status: 10, stderr: expect.stringContaining(`umount ${killed.directory}`) as string })
  expect(run('umount', killed.directory).status).toBe(0)
  expect(readdirSync(killed.directory)).toEqual([])

  for (const isTwice of [false, true]) {
    const used = await MountedMoment.of(VOLUME, '--at', at, ...data)
    const file = openSync(join(used.directory, 'study/large.dcm'), 'r')
    used.signal('SIGTERM')
    await until('the word that it is used', 20, () => used.log.includes('is in use') || undefined)
    expect(readSync(file, Buffer.alloc(10), 0, 10, 0)).toBe(10)
    if (isTwice) used.signal('SIGTERM')
    else closeSync(file)
    expect(await used.ended()).toBe(0)
    if (isTwice) expect(errnoIn(() => readSync(file, Buffer.alloc(10), 0, 10, LARGE_BYTES / 2))).toMatch(/^(ENOTCONN|ECONNABORTED|EIO)$/)
    if (isTwice) expect(errnoIn(() => closeSync(file))).toBe('ENOTCONN')
    expect(readdirSync(used.directory)).toEqual([])
  }

  // By whomever.
  const unmounted = await MountedMoment.of(VOLUME, '--at', at, ...data)
  expect(run('umount', unmounted.directory).status).toBe(0)
  expect(await unmounted.ended()).toBe(0)

  const full = scratchDirectory()
  writeFileSync(join(full, 'x'), '')
  for (const [target, directory, status] of [
    [VOLUME, full, 9],
    [VOLUME, join(full, 'nowhere'), 4],
    [`${VOLUME}/study/small.dcm`, unmounted.directory, 2],
    [`${VOLUME}/never`, unmounted.directory, 4],
  ] as const)
    expect(site.installation.try('mount', target, directory, '--at', at, ...data), target).toMatchObject({ status })
}

/** No collector runs. */
async function expectReadWithoutCollector({ copy, data, at }: Past): Promise<void> {
  const { directory, log } = await MountedMoment.of(`${VOLUME}/study`, '--at', at, ...data)
  expect(log).toContain('reading its repository directly')
  const below = [...copy].filter(([path]) => isWithin(path as RelativePath, 'study' as RelativePath))
  const rebased = new Map(below.map(([path, entry]) => [path.slice('study/'.length), entry]))
  expect(withoutLinks(differences(rebased, walkTree(directory)))).toEqual([])
  await expectReadable(join(directory, 'large.dcm'), LARGE)
}

async function expectDamageTold({ site, at }: Past): Promise<void> {
  const repository = join(scratchDirectory(), 'repository')
  cpSync(join(site.installation.data, 'repository'), repository, { recursive: true })
  const [pack] = readdirSync(join(repository, 'packs'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.pack'))
  if (pack === undefined) throw new Error('there is no pack')
  // In the middle of the first content that is large.
  const file = openSync(join(repository, 'packs', pack), 'r+')
  writeSync(file, Buffer.alloc(64, 0xff), 0, 64, LARGE_BYTES / 2)
  closeSync(file)
  const key = join(site.installation.data, 'keys/repository.key')
  const mounted = await MountedMoment.of(VOLUME, '--at', at, '--repository', repository, '--key-file', key)
  const path = join(mounted.directory, 'study/large.dcm')
  expect(errnoIn(() => readFileSync(path))).toBe('EIO')
  await until('the log', 10, () => /study\/large\.dcm: .*(CRC|in no pack)/.test(mounted.log) || undefined)
  const piece = Buffer.alloc(4096)
  const damaged = openSync(path, 'r')
  readSync(damaged, piece, 0, piece.length, LARGE_BYTES - piece.length)
  closeSync(damaged)
  expect(piece.equals(LARGE.subarray(LARGE_BYTES - piece.length))).toBe(true)
  expect(readFileSync(join(mounted.directory, 'study/small.dcm'), 'utf8')).toBe('small')
}

it('a mounted moment is what was there, says where it is damaged, and is free again however its process ends', async () => {
  const past = await pastMoment()
  await expectTruth(past)
  await expectFreed(past)
  await past.site.stop()
  await past.site.installation.kill('collector')
  await expectReadWithoutCollector(past)
  await expectDamageTold(past)
})
