/** What `--json` answers of what keeps a repository whole and small: every field that docs/json.md names is given, and none that it does not name. */
import { describe, expect, it } from 'vitest'
import type { CheckReport } from '../../collector/check.ts'
import { checkFields } from '../../collector/cli/check-command.ts'
import { holdFields } from '../../collector/cli/hold-command.ts'
import { pruneFields } from '../../collector/cli/prune-command.ts'
import { rebuildFields } from '../../collector/cli/rebuild-command.ts'
import type { ScrubReport } from '../../collector/scrub.ts'
import { label, relativePath } from '../../shared/path.ts'
import { FakeHistory, IMAGES, PACS, serveHistory } from '../support/fake-history.ts'
import { documented, fieldsOf } from '../support/json-document.ts'
import { answer } from '../support/launcher.ts'

describe('docs/json.md names exactly the fields of', () => {
  it('check', () => {
    const report: CheckReport = {
      repository: 'r',
      agents: 1,
      records: 1,
      versions: 1,
      chunks: 1,
      packs: 1,
      segments: 1,
      bytes: 1,
      seconds: 1,
      lostByAgent: 0,
      expired: 0,
      damage: [{ file: 'f', offset: 1, reason: 'r' }],
      affected: [{ agent: PACS, volume: IMAGES, path: relativePath('a'), timeMs: 1, epoch: 1, seq: 1, reason: 'r' }],
      notes: ['n'],
      access: [],
    }
    const broken = { file: '2026-11-29.jsonl', line: 1, reason: 'r' }
    const log = { files: 1, lines: 1, unchained: 0, anchored: { day: '2026-11-29', bytes: 1 }, broken }
    const named = documented('check').filter((name) => !['access', 'access.anchored', 'access.broken'].includes(name))
    expect(fieldsOf(checkFields(report, '/r', log))).toEqual(named)
  })

  it('scrub', () => {
    const damage = [{ file: 'f', offset: 1, reason: 'r' }]
    const healed = [
      {
        time: 't',
        file: 'f',
        source: 'parity',
        blocks: [{ offset: 0, length: 1, before: 'b', after: 'a' }],
        end: false,
        chunks: ['c'],
      } as const,
    ]
    const report: ScrubReport = {
      repository: 'r',
      files: 1,
      bytes: 1,
      seconds: 1,
      unprotected: 0,
      found: damage,
      healed,
      left: damage,
      superseded: damage,
    }
    expect(fieldsOf(report)).toEqual(documented('scrub'))
  })

  it('rebuild', () => {
    const damage = [{ file: 'f', offset: 1, reason: 'r' }]
    const report = { records: 1, chunks: 1, seconds: 1, damage, before: 'different', differences: 1, reason: '', setAside: '/c' } as const
    expect(fieldsOf(rebuildFields(report))).toEqual(documented('rebuild'))
  })

  it('prune', () => {
    const kept = { current: 1, recent: 1, worm: 1, hourly: 1, daily: 1, monthly: 1, marked: 1, held: 1 }
    const volumes = [{ agent: PACS, volume: IMAGES, isLimited: true, versions: 8, kept, expiring: 1, shared: 0 }]
    const pack = { number: 1, bytes: 1 }
    const plan = { volumes, packs: [{ ...pack, liveBytes: 1 }], deletable: [pack], quarantined: [pack], deadBytes: 1, doubts: ['d'] }
    const report = { plan, retired: 1, deleted: 1, freedBytes: 1, movedBytes: 1, kept: [{ pack: 1, reason: 'r' }] }
    expect([...fieldsOf(pruneFields(report)), 'done'].sort()).toEqual(documented('prune'))
  })

  it('hold', async () => {
    const name = label('trial', 'Hold')
    const hold = { name, agent: PACS, volume: IMAGES, pattern: 'x\xff', fromMs: 1, untilMs: undefined }
    expect(fieldsOf(holdFields(hold))).toEqual(documented('hold add'))
    expect(fieldsOf({ holds: [holdFields(hold)] })).toEqual(documented('hold list'))
    const routes = { holds: () => Promise.resolve([hold]), release: () => Promise.resolve() }
    const data = await serveHistory(new FakeHistory(), routes)
    expect(fieldsOf(await answer('hold', 'list', '--data', data))).toEqual(documented('hold list'))
    expect(fieldsOf(await answer('hold', 'remove', 'trial', '--data', data))).toEqual(documented('hold remove'))
  })
})
