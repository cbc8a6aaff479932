/**
 * Pairs of a database and its log, captured while another process commits as fast as it can. Each must open, be whole, and
 * hold the rows 1 to n, with n at least what had been committed when the capture began.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { CaptureRequest } from '../../agent/capture.ts'
import type { PairPart, Side } from '../../agent/capture-job.ts'
import { identityOf } from '../../agent/file-stat.ts'
import type { Digest } from '../../shared/digest.ts'
import { CAPTURE_BYTES_IN_FLIGHT } from '../../shared/limits.ts'
import type { FileVersion } from '../../shared/version.ts'
import { type Captured, CaptureSite, contentFrom, joinedDigests, side } from '../support/capture-site.ts'
import { loopFilesystem } from '../support/loop-filesystem.ts'
import { scratchDirectory } from '../support/scratch.ts'

const PAIRS = 50

/**
 * Inserts rows, and counts them on one of the first pages, in one transaction after the other; says each hundredth.
 */
const WRITE = `
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('PRAGMA locking_mode=EXCLUSIVE')
db.execute('PRAGMA journal_mode=WAL')
db.execute('PRAGMA synchronous=OFF')
pause = float(sys.argv[3])
db.execute('PRAGMA wal_autocheckpoint=' + sys.argv[2])
db.execute('CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT, k TEXT)')
db.execute('CREATE INDEX i ON t (k)')
db.execute('CREATE TABLE c (n INTEGER)')
db.execute('INSERT INTO c VALUES (0)')
n = 0
while True:
    n += 1
    db.execute('BEGIN')
    db.execute('INSERT INTO t VALUES (?, ?, ?)', (n, 'x' * (n * 37 % 300), str(n * 7919 % 10007)))
    db.execute('UPDATE c SET n = ?', (n,))
    db.execute('UPDATE t SET s = s WHERE n = ?', (n // 2,))
    db.execute('COMMIT')
    if n % 100 == 0: print(n, flush=True)
    if pause > 0: time.sleep(pause)
`

const pair = (base: Side = side('db'), wal: Side = side('db-wal')): CaptureRequest => ({ kind: 'examine-pair', base, wal })

function partsOf({ outcome }: Captured): { base: PairPart; wal: PairPart } {
  if (outcome.kind !== 'pair') throw new Error(`the outcome is ${JSON.stringify(outcome)}`)
  return outcome
}

function fileOfPart(part: PairPart): FileVersion {
  if (part.kind !== 'version' || part.version.kind !== 'file') throw new Error(`the part is ${part.kind}`)
  return part.version
}

/** What is known of a side once the version is recorded. */
const knownSide = (name: string, version: FileVersion): Side => ({
  ...side(name),
  known: identityOf({ version, isLost: false }),
  storedDigests: joinedDigests(version),
})

/** Opens a restored pair; the number of its rows, if they are the first ones without a gap. */
function rowsIn(base: Buffer, wal: Buffer | undefined): number {
  const directory = scratchDirectory()
  const path = join(directory, 'db')
  writeFileSync(path, base)
  if (wal !== undefined) writeFileSync(`${path}-wal`, wal)
  const database = new DatabaseSync(path)
  try {
    expect(database.prepare('PRAGMA integrity_check').get()).toEqual({ integrity_check: 'ok' })
    const { count, last, counted } =
      database.prepare('SELECT count(*) AS count, max(n) AS last, (SELECT n FROM c) AS counted FROM t').get() ?? {}
    expect([count, counted]).toEqual([last, last])
    return Number(count)
  } finally {
    database.close()
    rmSync(directory, { recursive: true })
  }
}

/** A writer of a database; `committed` is what it has said last. */
async function startWriter(path: string, checkpointPages: number, pauseSeconds: number) {
  const writer = spawn('python3', ['-c', WRITE, path, String(checkpointPages), String(pauseSeconds)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(writer, 'exit')
  const stop = async (): Promise<void> => {
    writer.kill()
    await ended
  }
  onTestFinished(stop)
  const lines = createInterface({ input: writer.stdout })
  const state = { committed: 0, stop }
  lines.on('line', (line) => {
    state.committed = Number(line)
  })
  await once(lines, 'line')
  return state
}

async function captureMany(site: CaptureSite, checkpointPages: number, pauseSeconds: number): Promise<void> {
  const writer = await startWriter(site.file('db'), checkpointPages, pauseSeconds)
  const shipped = new Map<Digest, Buffer>()
  let [baseSide, walSide] = [side('db'), side('db-wal')]
  let base: Buffer | undefined
  let wal: Buffer | undefined
  let bases = 0
  for (let pairs = 0; pairs < PAIRS; ) {
    const { committed } = writer
    const captured = await site.request(pair(baseSide, walSide))
    if (captured.outcome.kind === 'busy') continue
    pairs += 1
    for (const [digest, bytes] of captured.chunks) shipped.set(digest, bytes)
    const parts = partsOf(captured)
    if (parts.base.kind === 'version') {
      const version = fileOfPart(parts.base)
      expect(version.consistency).toBe('crash-consistent')
      base = contentFrom(version, shipped)
      baseSide = knownSide('db', version)
      bases += 1
    }
    if (parts.wal.kind === 'version') {
      const version = fileOfPart(parts.wal)
      wal = contentFrom(version, shipped)
      walSide = knownSide('db-wal', version)
    }
    if (base === undefined) throw new Error('the first pair has a database')
    expect(rowsIn(base, wal)).toBeGreaterThanOrEqual(committed)
  }
  expect(bases).toBeGreaterThan(1)
}

describe('a database in WAL mode that is being written', () => {
  it(`is captured ${PAIRS} times as it was at one moment`, { timeout: 120_000 }, async () => {
    await captureMany(new CaptureSite(), 1000, 0.0005)
  })

  it('is read again when its log began anew meanwhile', async () => {
    const site = new CaptureSite()
    const database = new DatabaseSync(site.file('db'))
    onTestFinished(() => database.close())
    database.exec(`PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t (n INTEGER PRIMARY KEY); CREATE TABLE c (n INTEGER);
      INSERT INTO c VALUES (0); CREATE TABLE ballast (b BLOB)`)
    // More than may be under way: the capture waits within the database until this test takes what it has.
    const megabytes = CAPTURE_BYTES_IN_FLIGHT / 1e6 + 10
    for (let i = 0; i < megabytes; i++) database.exec('INSERT INTO ballast VALUES (randomblob(1000000))')
    const commit = (n: number): void => database.exec(`BEGIN; INSERT INTO t VALUES (${n}); UPDATE c SET n = ${n}; COMMIT`)
    commit(1)
    database.exec('PRAGMA wal_checkpoint(FULL)')
    commit(2)
    let chunks = 0
    const captured = await site.request(pair(), () => {
      chunks += 1
      if (chunks > 1) return undefined
      database.exec('PRAGMA wal_checkpoint(FULL)')
      // Nothing of the new log says what the old one had.
      database.exec('INSERT INTO ballast VALUES (1)')
      return Promise.resolve()
    })
    const { base, wal } = partsOf(captured)
    expect(rowsIn(contentFrom(fileOfPart(base), captured.chunks), contentFrom(fileOfPart(wal), captured.chunks))).toBe(2)
  })

  it.skipIf(process.getuid?.() !== 0)('is captured so by clones where the filesystem has them', { timeout: 120_000 }, async () => {
    await captureMany(new CaptureSite(loopFilesystem('xfs')), 100, 0.0005)
  })

  it('is named by a look at either of its files, once they are to be read', async () => {
    const site = new CaptureSite()
    await startWriter(site.file('db'), 1000, 0)
    expect((await site.look('db')).outcome).toEqual({ kind: 'busy' })
    expect((await site.look('db', { asIs: true })).outcome).toEqual({ kind: 'paired', base: 'db' })
    expect((await site.look('db-wal', { asIs: true })).outcome).toEqual({ kind: 'paired', base: 'db' })
  })
})

describe('a database in WAL mode at rest', () => {
  const make = (path: string): void => {
    const script = `import sqlite3, os, sys
db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA journal_mode=WAL'); db.execute('CREATE TABLE t (n INTEGER PRIMARY KEY)')
db.execute('CREATE TABLE c (n)')
db.execute('INSERT INTO t VALUES (1)'); db.execute('INSERT INTO c VALUES (1)'); db.commit(); os._exit(0)`
    expect(spawnSync('python3', ['-c', script, path]).status).toBe(0)
  }

  it('is stable together with the log that a crash left, and the same at the next look', async () => {
    const site = new CaptureSite()
    make(site.file('db'))
    expect((await site.look('db')).outcome).toEqual({ kind: 'paired', base: 'db' })
    const captured = await site.request(pair())
    const { base, wal } = partsOf(captured)
    const [baseVersion, walVersion] = [fileOfPart(base), fileOfPart(wal)]
    expect([baseVersion.consistency, walVersion.consistency]).toEqual(['stable', 'stable'])
    expect(rowsIn(contentFrom(baseVersion, captured.chunks), contentFrom(walVersion, captured.chunks))).toBe(1)
    const again = await site.request(pair(knownSide('db', baseVersion), knownSide('db-wal', walVersion)))
    expect(partsOf(again)).toMatchObject({ base: { kind: 'same' }, wal: { kind: 'same' } })
  })

  it('needs no log, nor one with something in it', async () => {
    const site = new CaptureSite()
    make(site.file('db'))
    truncateSync(site.file('db-wal'), 0)
    expect(partsOf(await site.request(pair()))).toMatchObject({ base: { kind: 'version' }, wal: { version: { size: 0 } } })
    rmSync(site.file('db-wal'))
    expect((await site.look('db-wal')).outcome).toEqual({ kind: 'paired', base: 'db' })
    expect(partsOf(await site.request(pair()))).toMatchObject({ base: { kind: 'version' }, wal: { kind: 'gone', topmost: 'db-wal' } })
  })

  it('is none when it is gone, or another file with such a name', async () => {
    const site = new CaptureSite()
    writeFileSync(site.file('db'), 'no database')
    writeFileSync(site.file('db-wal'), 'no log')
    expect((await site.look('db-wal')).outcome.kind).toBe('version')
    expect((await site.request(pair())).outcome).toEqual({ kind: 'busy' })
    rmSync(site.file('db'))
    expect((await site.request(pair())).outcome).toEqual({ kind: 'busy' })
    expect((await site.look('db-wal')).outcome.kind).toBe('version')
    mkdirSync(site.file('e'))
    writeFileSync(site.file('e/-wal'), 'a name of its own')
    expect((await site.look('e/-wal')).outcome.kind).toBe('version')
  })
})
