/**
 * Makes the golden access log, once: `node test/formats/make-golden-access.ts test/formats/v1-access`.
 * What holds for `v1` and make-golden.ts holds for it: read for ever, never changed.
 *
 *     access/                   two days; the first begins with two lines of a release that did not chain them
 *     entries.json              of the entry of a ledger that names the last line the bytes in hex, and what they say
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AccessLog } from '../../collector/access-log.ts'
import { encodeLedgerEntry, LEDGER_START } from '../../collector/repository/ledger-entry.ts'
import { label } from '../../shared/path.ts'
import { plainEntry } from './plain.ts'

const START_MS = Date.UTC(2026, 10, 29, 23, 59, 58)
const SECOND_MS = 1000

const [, , directory = ''] = process.argv
mkdirSync(directory)
mkdirSync(join(directory, 'access'))
const reader = { name: label('radiology', 'Restorer'), by: 'certificate', address: '192.0.2.7' } as const
const time = new Date(START_MS).toISOString()
const unchained = [
  { time, id: 'earlier-1', event: 'asked', restorer: reader.name, by: reader.by, address: reader.address, what: 'volumes' },
  { time, id: 'earlier-1', event: 'ended', outcome: 'whole', bytes: 44 },
]
writeFileSync(join(directory, 'access/2026-11-29.jsonl'), unchained.map((line) => `${JSON.stringify(line)}\n`).join(''), { flag: 'wx' })

let now = START_MS
using log = new AccessLog(directory, { now: () => now })
for (const what of ['volumes', 'point', 'content']) {
  const id = log.asked(reader, what, { agent: 'pacs1', volume: 'images', path: 'CT/ä\\xff.dcm' })
  now += SECOND_MS
  log.ended(id, what === 'content' ? 'cut' : 'whole', 1000)
}
const end = log.durableEnd()
if (end === undefined) throw new Error('nothing was written')
const entry = { previous: LEDGER_START.hash, number: 1, wallMs: now, ageMs: 0, body: { kind: 'access', ...end } } as const
const entries = [{ hex: encodeLedgerEntry(entry).toString('hex'), value: plainEntry(entry) }]
writeFileSync(join(directory, 'entries.json'), `${JSON.stringify(entries, null, 1)}\n`, { flag: 'wx' })
