import { appendFileSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type AccessEnd, accessLine, chainedLine } from '../../collector/access-chain.ts'
import { type AccessCheck, checkAccessLog } from '../../collector/access-check.ts'
import { AccessLog, accessDirectory, type Reader } from '../../collector/access-log.ts'
import { NO_DIGEST } from '../../shared/digest.ts'
import { label } from '../../shared/path.ts'
import { scratchDirectory } from '../support/scratch.ts'

const DAY_MS = 24 * 3_600_000
const START_MS = Date.UTC(2026, 10, 27, 12, 0, 0)
const READER: Reader = { name: label('radiology', 'Restorer'), by: 'certificate', address: '192.0.2.7' }
const DAYS = ['2026-11-27.jsonl', '2026-11-28.jsonl', '2026-11-29.jsonl']
const UNCHAINED = '{"time":"2026-11-27T11:00:00.000Z","id":"old-1","event":"asked"}\n'

/** A log of three days with four lines each, written by three runs of the collector, and what the ledger might know of it. */
class WrittenLog {
  readonly dataDir = scratchDirectory()
  readonly anchors: AccessEnd[] = []
  #now = START_MS

  static write(): WrittenLog {
    const written = new WrittenLog()
    for (const _ of DAYS) {
      written.run()
      written.#now += DAY_MS
    }
    return written
  }

  get directory(): string {
    return accessDirectory(this.dataDir)
  }

  /** Two questions, as a collector that is started and stopped answers them. */
  run(facts: object = { path: 'CT/1.dcm' }, nowMs = this.#now): void {
    using log = new AccessLog(this.dataDir, { now: () => nowMs })
    for (let i = 0; i < 2; i++) log.ended(log.asked(READER, 'content', facts), 'whole', i)
    const end = log.durableEnd()
    if (end !== undefined) this.anchors.push(end)
  }

  linesOf(file: string): string[] {
    return readFileSync(join(this.directory, file), 'utf8').split('\n').slice(0, -1)
  }

  put(file: string, lines: readonly string[]): void {
    writeFileSync(join(this.directory, file), lines.map((line) => `${line}\n`).join(''))
  }

  check(anchors: readonly AccessEnd[] = []): Promise<AccessCheck> {
    return checkAccessLog(this.directory, anchors)
  }

  /** Every line anew, as somebody does who may write here. */
  chainAnew(): void {
    let hash = NO_DIGEST
    for (const file of readdirSync(this.directory).toSorted()) {
      const lines = this.linesOf(file).map((line, i) => {
        const { previous: _, chain: __, ...facts } = JSON.parse(line) as Record<string, unknown>
        const made = chainedLine(hash, facts, i === 0)
        hash = made.hash
        return made.bytes.toString('utf8').trimEnd()
      })
      this.put(file, lines)
    }
  }
}

describe('the access log', () => {
  it('is one chain over days and runs, and the ledger vouches for its end', async () => {
    const written = WrittenLog.write()
    const { broken, files, lines, unchained, anchored } = await written.check(written.anchors)
    expect({ broken, files, lines, unchained }).toEqual({ broken: undefined, files: 3, lines: 12, unchained: 0 })
    expect(anchored).toMatchObject({ day: '2026-11-29' })
    for (const file of DAYS) for (const line of written.linesOf(file)) expect(JSON.parse(line)).toHaveProperty('time')
  })

  it('that is altered, or from which a line is taken, is broken there, whichever line it is', async () => {
    for (const file of DAYS)
      for (let i = 0; i < 4; i++) {
        const altered = WrittenLog.write()
        altered.put(
          file,
          altered.linesOf(file).with(i, altered.linesOf(file)[i]?.replace('radiology', 'nobody').replace('"bytes":', '"bytes":9') ?? ''),
        )
        expect((await altered.check()).broken, `${file}, line ${i + 1}, altered`).toMatchObject({ file, line: i + 1 })

        const shorter = WrittenLog.write()
        shorter.put(file, shorter.linesOf(file).toSpliced(i, 1))
        const isLastOfAll = file === DAYS[2] && i === 3
        const isLast = i === 3
        const next = DAYS[DAYS.indexOf(file) + 1]
        const expected = isLastOfAll ? undefined : isLast ? { file: next, line: 1 } : { file, line: i + 1 }
        const { broken } = await shorter.check()
        expect(broken && { file: broken.file, line: broken.line }, `${file}, line ${i + 1}, taken out`).toEqual(expected)
      }
  })

  it('into which a line is put, or in which two change places, is broken there', async () => {
    const longer = WrittenLog.write()
    longer.put('2026-11-28.jsonl', longer.linesOf('2026-11-28.jsonl').toSpliced(2, 0, UNCHAINED.trimEnd()))
    expect((await longer.check()).broken).toMatchObject({ file: '2026-11-28.jsonl', line: 4 })
    const turned = WrittenLog.write()
    const [a = '', b = '', c = '', d = ''] = turned.linesOf('2026-11-28.jsonl')
    turned.put('2026-11-28.jsonl', [a, c, b, d])
    expect((await turned.check()).broken).toMatchObject({ file: '2026-11-28.jsonl', line: 2 })
  })

  it('lacks no day in its middle, but may begin later', async () => {
    const middle = WrittenLog.write()
    rmSync(join(middle.directory, '2026-11-28.jsonl'))
    expect((await middle.check()).broken).toMatchObject({ file: '2026-11-29.jsonl', line: 1 })
    const moved = WrittenLog.write()
    rmSync(join(moved.directory, '2026-11-27.jsonl'))
    expect((await moved.check(moved.anchors)).broken).toBeUndefined()
  })

  it('that was cut off at its end, or chained anew, is found by what the ledger says, and by nothing else', async () => {
    const cut = WrittenLog.write()
    cut.put('2026-11-29.jsonl', cut.linesOf('2026-11-29.jsonl').slice(0, 2))
    expect((await cut.check()).broken).toBeUndefined()
    expect((await cut.check(cut.anchors)).broken).toMatchObject({ file: '2026-11-29.jsonl', line: 3 })
    const gone = WrittenLog.write()
    rmSync(join(gone.directory, '2026-11-29.jsonl'))
    expect((await gone.check()).broken).toBeUndefined()
    expect((await gone.check(gone.anchors)).broken).toMatchObject({ file: '2026-11-29.jsonl', line: 1 })
    const anew = WrittenLog.write()
    const [first = '', ...others] = anew.linesOf('2026-11-28.jsonl')
    anew.put('2026-11-28.jsonl', [first.replace('radiology', 'someone99'), ...others])
    anew.chainAnew()
    expect((await anew.check()).broken).toBeUndefined()
    expect((await anew.check(anew.anchors)).broken).toMatchObject({ file: '2026-11-28.jsonl', line: 4 })
  })

  it('goes on behind lines of a release that did not chain them, which stay as they are', async () => {
    const written = new WrittenLog()
    written.run()
    rmSync(join(written.directory, '2026-11-27.jsonl'))
    writeFileSync(join(written.directory, '2026-11-26.jsonl'), UNCHAINED)
    writeFileSync(join(written.directory, '2026-11-27.jsonl'), UNCHAINED + UNCHAINED)
    written.run()
    expect(written.linesOf('2026-11-27.jsonl').slice(0, 2)).toEqual([UNCHAINED.trimEnd(), UNCHAINED.trimEnd()])
    const { broken, lines, unchained } = await written.check()
    expect({ broken, lines, unchained }).toEqual({ broken: undefined, lines: 7, unchained: 3 })
  })

  it('makes a line of what a power cut has left of one, and goes on behind it', async () => {
    const file = '2026-11-29.jsonl'
    // Of the first line of a day, and of a later one; the next run begins on the same day, or on the next.
    for (const left of [40, 700])
      for (const nowMs of [START_MS + 2 * DAY_MS, START_MS + 3 * DAY_MS]) {
        const written = WrittenLog.write()
        truncateSync(join(written.directory, file), left)
        written.run({}, nowMs)
        const { broken, unchained } = await written.check()
        expect({ broken, unchained }, `${left} bytes`).toEqual({ broken: undefined, unchained: 0 })
        // It is in the chain like any other.
        const lines = readFileSync(join(written.directory, file), 'utf8').trimEnd().split('\n')
        const torn = lines.findIndex((line) => accessLine(Buffer.from(line)).chain === undefined)
        written.put(file, lines.toSpliced(torn, 1))
        expect((await written.check()).broken, `${left} bytes`).toBeDefined()
      }
  })

  it('finds its end behind a line that is longer than what is read at once', async () => {
    const written = new WrittenLog()
    written.run({ path: 'x'.repeat(3_000_000) })
    appendFileSync(join(written.directory, '2026-11-27.jsonl'), '{"torn')
    written.run()
    const { broken, lines, unchained } = await written.check(written.anchors)
    expect({ broken, lines, unchained }).toEqual({ broken: undefined, lines: 9, unchained: 0 })
  })

  it('that nobody has written yet, or whose file is no log, is no trouble', async () => {
    const written = new WrittenLog()
    expect(await checkAccessLog(join(written.dataDir, 'nowhere'), [])).toMatchObject({ files: 0, lines: 0, broken: undefined })
    written.run()
    renameSync(join(written.directory, '2026-11-27.jsonl'), join(written.directory, 'moved-away.jsonl.old'))
    expect((await written.check()).files).toBe(0)
  })
})
