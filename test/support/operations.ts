/**
 * Every kind of change that a filesystem knows, one by one: how it is done, and what must be recorded of it.
 *
 * `records` are the least: `put NAME` and `remove NAME`, where a rename counts as both, for what it moves along too. A record
 * of a path that is named neither there nor in `maybe` is a fault. It prevents a kind of change from being forgotten because
 * no workload happens to do it.
 */
import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { libc } from '../../shared/libc.ts'

const CALLS = join(import.meta.dirname, 'calls.py')
const MEBIBYTE = 1 << 20

/** Where an operation takes place; names are byte strings. */
export class Ground {
  readonly directory: string
  /** On the same filesystem, not protected. */
  readonly outside: string

  constructor(directory: string, outside: string) {
    this.directory = directory
    this.outside = outside
  }

  at(name: string): Buffer {
    return Buffer.from(`${this.directory}/${name}`, 'latin1')
  }

  out(name: string): Buffer {
    return Buffer.from(`${this.outside}/${name}`, 'latin1')
  }

  write(name: string, content: string | Buffer = `content of ${name}`): void {
    writeFileSync(this.at(name), content)
  }

  mkdir(name: string): void {
    mkdirSync(this.at(name), { recursive: true })
  }

  run(command: string, ...args: string[]): void {
    const { status, stderr } = spawnSync(command, args, { cwd: this.directory, encoding: 'utf8' })
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`)
  }

  call(name: string): void {
    this.run('python3', CALLS, name, this.directory)
  }
}

export interface Operation {
  readonly name: string
  readonly setup?: (on: Ground) => void
  readonly act: (on: Ground) => void
  /** Done after everything of `act` was captured. */
  readonly later?: (on: Ground) => void
  readonly records: readonly string[]
  /** Paths of which something may be recorded besides. */
  readonly maybe?: readonly string[]
  /** Files of which the holes must be holes again. */
  readonly sparse?: readonly string[]
  /** Recorded, but made again by a restore only where that is asked for. */
  readonly special?: string
}

const LONG_NAME = 'n'.repeat(255)
const NOT_UTF8 = 'caf\xe9 \xff\xfe.dcm'
/** About 3,950 bytes below the operation's directory, of at most 4,095 that a path may have as a whole. */
const DEEP = `${`${'d'.repeat(243)}/`.repeat(15)}${'e'.repeat(200)}`
const DEEP_FILE = `${DEEP}/f`
const DEEP_DIRECTORIES = DEEP.split('/').map((_, i, names) => names.slice(0, i + 1).join('/'))

function withFile(on: Ground): void {
  on.write('f', Buffer.alloc(12_288, 'a'))
}

const CONTENT: readonly Operation[] = [
  { name: 'create', act: (on) => on.write('f'), records: ['put f'] },
  { name: 'create an empty file and directory', act: (on) => (on.write('f', ''), on.mkdir('d')), records: ['put f', 'put d'] },
  { name: 'overwrite', setup: withFile, act: (on) => on.call('write-in-pieces'), records: ['put f'] },
  { name: 'append', setup: withFile, act: (on) => appendFileSync(on.at('f'), 'more'), records: ['put f'] },
  { name: 'open with O_TRUNC, nothing written', setup: withFile, act: (on) => closeSync(openSync(on.at('f'), 'w')), records: ['put f'] },
  { name: 'truncate by path', setup: withFile, act: (on) => on.run('truncate', '-s', '100', 'f'), records: ['put f'] },
  {
    name: 'ftruncate to a greater size',
    setup: withFile,
    act: (on) => {
      const fd = openSync(on.at('f'), 'r+')
      ftruncateSync(fd, 100_000)
      closeSync(fd)
    },
    records: ['put f'],
  },
  { name: 'fallocate', setup: withFile, act: (on) => on.run('fallocate', '-l', '300000', 'f'), records: ['put f'] },
  {
    name: 'punch a hole',
    setup: (on) => on.write('f', Buffer.alloc(4 * MEBIBYTE, 'a')),
    act: (on) => on.call('punch-hole'),
    records: ['put f'],
    sparse: ['f'],
  },
  {
    name: 'copy by reflink or copy_file_range',
    setup: withFile,
    act: (on) => {
      on.run('cp', '--reflink=auto', 'f', 'g')
      copyFileSync(on.at('f'), on.at('h'))
    },
    records: ['put g', 'put h'],
    maybe: ['f'],
  },
  {
    name: 'a sparse file',
    act: (on) => {
      const fd = openSync(on.at('f'), 'w')
      for (const at of [0, 40 * MEBIBYTE]) writeSync(fd, Buffer.alloc(MEBIBYTE, 's'), 0, MEBIBYTE, at)
      ftruncateSync(fd, 64 * MEBIBYTE)
      fsyncSync(fd)
      closeSync(fd)
    },
    records: ['put f'],
    sparse: ['f'],
  },
]

const NAMES: readonly Operation[] = [
  {
    name: 'hard link in another directory, written through',
    setup: (on) => (withFile(on), on.mkdir('other')),
    act: (on) => {
      linkSync(on.at('f'), on.at('other/h'))
      appendFileSync(on.at('other/h'), 'through the other name')
    },
    records: ['put f', 'put other/h'],
    maybe: ['other'],
  },
  {
    name: 'unlink one of two names',
    setup: (on) => (withFile(on), linkSync(on.at('f'), on.at('g'))),
    act: (on) => unlinkSync(on.at('f')),
    records: ['remove f'],
    maybe: ['g'],
  },
  {
    name: 'symlink with an odd target, and another by rename',
    setup: (on) => symlinkSync(Buffer.from('old target'), on.at('t')),
    act: (on) => {
      symlinkSync(Buffer.from('\xff odd\n target ', 'latin1'), on.at('s'))
      symlinkSync(Buffer.from('new target'), on.at('t.tmp'))
      renameSync(on.at('t.tmp'), on.at('t'))
    },
    records: ['put s', 'put t'],
    maybe: ['t.tmp'],
  },
  { name: 'open with O_TMPFILE, then linkat', act: (on) => on.call('tmpfile-link'), records: ['put linked'] },
  {
    name: 'rename over an existing file',
    setup: (on) => (on.write('a'), on.write('z')),
    act: (on) => renameSync(on.at('a'), on.at('z')),
    records: ['remove a', 'put z'],
  },
  {
    name: 'exchange two files',
    setup: (on) => (on.write('a'), on.write('z')),
    act: (on) => on.call('exchange'),
    records: ['put a', 'put z'],
  },
  {
    name: 'S24 rename that changes only the case',
    setup: (on) => on.write('Image.dcm'),
    act: (on) => renameSync(on.at('Image.dcm'), on.at('image.dcm')),
    records: ['remove Image.dcm', 'put image.dcm'],
  },
  {
    name: 'rename a directory with content, then write there',
    setup: (on) => (on.mkdir('d/e'), on.write('d/f'), on.write('d/e/g')),
    act: (on) => {
      renameSync(on.at('d'), on.at('moved'))
      on.write('moved/e/new')
    },
    records: ['remove d', 'put moved', 'put moved/e', 'put moved/f', 'put moved/e/g', 'put moved/e/new'],
    maybe: ['d/e', 'd/f', 'd/e/g', 'd/e/new'],
  },
  {
    name: 'move a directory in from outside, and one out',
    setup: (on) => {
      mkdirSync(on.out('in/deep'), { recursive: true })
      writeFileSync(on.out('in/deep/f'), 'from outside')
      on.mkdir('leaving')
      on.write('leaving/g')
    },
    act: (on) => {
      renameSync(on.out('in'), on.at('in'))
      renameSync(on.at('leaving'), on.out('left'))
    },
    records: ['put in', 'put in/deep', 'put in/deep/f', 'remove leaving'],
    maybe: ['leaving/g'],
  },
  {
    name: 'unlink while open, then write',
    setup: withFile,
    act: (on) => {
      const fd = openSync(on.at('f'), 'r+')
      unlinkSync(on.at('f'))
      writeSync(fd, 'to nobody')
      closeSync(fd)
    },
    records: ['remove f'],
  },
  {
    name: 'S06 new directory, temporary file, rename',
    act: (on) => {
      on.mkdir('new/er')
      on.write('new/er/f.tmp')
      renameSync(on.at('new/er/f.tmp'), on.at('new/er/f'))
    },
    records: ['put new', 'put new/er', 'put new/er/f'],
    maybe: ['new/er/f.tmp'],
  },
  {
    name: 'S07 directory deleted and made again, then written to',
    setup: (on) => (on.mkdir('d'), on.write('d/f')),
    act: (on) => {
      rmSync(on.at('d'), { recursive: true })
      on.mkdir('d')
      on.write('d/g')
    },
    later: (on) => on.write('d/h'),
    records: ['remove d/f', 'put d/g', 'put d/h'],
    maybe: ['d'],
  },
  {
    name: 'a file becomes a directory, and a directory a file',
    setup: (on) => (on.write('f'), on.mkdir('d'), on.write('d/g')),
    act: (on) => {
      unlinkSync(on.at('f'))
      on.mkdir('f')
      on.write('f/inside')
      rmSync(on.at('d'), { recursive: true })
      on.write('d')
    },
    records: ['put f', 'put f/inside', 'put d'],
    maybe: ['d/g'],
  },
  { name: 'S24 a name of 255 bytes', act: (on) => on.write(LONG_NAME, 'x'), records: [`put ${LONG_NAME}`] },
  { name: 'S24 a name that is not UTF-8', act: (on) => on.write(NOT_UTF8, 'x'), records: [`put ${NOT_UTF8}`] },
  {
    name: 'S24 two names that are the same when normalised',
    act: (on) => (on.write('\xc3\xa9', 'composed'), on.write('e\xcc\x81', 'decomposed')),
    records: ['put \xc3\xa9', 'put e\xcc\x81'],
  },
  { name: 'S24 a name with a newline', act: (on) => on.write('line\nbreak'), records: ['put line\nbreak'] },
  {
    name: 'S24 a path of 4000 bytes',
    act: (on) => (on.mkdir(DEEP), on.write(DEEP_FILE, 'deep')),
    records: [`put ${DEEP_FILE}`],
    maybe: DEEP_DIRECTORIES,
  },
]

const METADATA: readonly Operation[] = [
  { name: 'chmod', setup: withFile, act: (on) => chmodSync(on.at('f'), 0o640), records: ['put f'] },
  { name: 'chmod of a directory', setup: (on) => on.mkdir('d'), act: (on) => chmodSync(on.at('d'), 0o1770), records: ['put d'] },
  { name: 'chown', setup: withFile, act: (on) => chownSync(on.at('f'), 1234, 4321), records: ['put f'] },
  { name: 'utimes into the past', setup: withFile, act: (on) => utimesSync(on.at('f'), 1e9, 1e9), records: ['put f'] },
  {
    name: 'a modification time with nanoseconds',
    setup: withFile,
    act: (on) => libc?.setModified(on.at('f').toString('latin1'), 1_700_000_000_123_456_789n),
    records: ['put f'],
  },
  {
    name: 'setxattr and removexattr',
    setup: (on) => (withFile(on), on.write('g'), libc?.setXattr(on.at('g').toString('latin1'), 'user.old', 'gone soon')),
    act: (on) => {
      libc?.setXattr(on.at('f').toString('latin1'), 'user.pacs', 'bytes \xff\0')
      libc?.removeXattr(on.at('g').toString('latin1'), 'user.old')
    },
    records: ['put f', 'put g'],
  },
  {
    name: 'setfacl',
    setup: (on) => (withFile(on), on.mkdir('d')),
    act: (on) => {
      on.run('setfacl', '-m', 'u:1000:r', 'f')
      on.run('setfacl', '-d', '-m', 'u:1000:rx', 'd')
    },
    records: ['put f', 'put d'],
  },
  { name: 'setuid bit', setup: withFile, act: (on) => chmodSync(on.at('f'), 0o4755), records: ['put f'] },
  { name: 'mkfifo', act: (on) => on.run('mkfifo', 'fifo'), records: ['put fifo'], special: 'fifo' },
  { name: 'mknod of a device', act: (on) => on.call('character-device'), records: ['put null'], special: 'null' },
  { name: 'unix socket', act: (on) => on.call('unix-socket'), records: ['put socket'], special: 'socket' },
]

export const OPERATIONS: readonly Operation[] = [...CONTENT, ...NAMES, ...METADATA]

/** What was recorded of an operation, as `put NAME`, `remove NAME`, `rename NAME -> NAME`, names relative to its directory. */
export interface Recorded {
  readonly op: 'put' | 'remove' | 'rename'
  readonly path: string
  readonly to?: string
}

/** What is wrong with what was recorded of an operation, in words. */
export function faults({ records, maybe = [] }: Operation, recorded: readonly Recorded[]): string[] {
  const isAtOrBelow = (path: string, top: string): boolean => path === top || path.startsWith(`${top}/`)
  const isDone = (wanted: string): boolean => {
    const [kind, path] = [wanted.slice(0, wanted.indexOf(' ')), wanted.slice(wanted.indexOf(' ') + 1)]
    return recorded.some((record) =>
      kind === 'put'
        ? (record.op === 'put' && record.path === path) || (record.to !== undefined && isAtOrBelow(path, record.to))
        : record.op !== 'put' && isAtOrBelow(path, record.path),
    )
  }
  const named = new Set([...records.map((record) => record.slice(record.indexOf(' ') + 1)), ...maybe, ''])
  return [
    ...records.filter((wanted) => !isDone(wanted)).map((wanted) => `no record: ${JSON.stringify(wanted.slice(0, 80))}`),
    ...recorded
      .filter(({ path, to }) => !named.has(path) || (to !== undefined && !named.has(to)))
      .map((record) => `unexpected record: ${JSON.stringify(record).slice(0, 120)}`),
  ]
}
