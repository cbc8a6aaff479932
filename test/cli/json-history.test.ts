/** What `--json` answers of history and restores: every field that docs/json.md names is given, and none that it does not name. */
import { describe, expect, it } from 'vitest'
import { changeFields } from '../../collector/cli/diff-command.ts'
import { entryFields } from '../../collector/cli/entry-row.ts'
import { logFields } from '../../collector/cli/log-row.ts'
import { markFields } from '../../collector/cli/mark-command.ts'
import { mountFields } from '../../collector/cli/mount-command.ts'
import { restoreFields } from '../../collector/cli/restore-row.ts'
import { listFields, undoFields } from '../../collector/cli/restore-undo.ts'
import { windowFields } from '../../collector/cli/window-command.ts'
import type { RestoreReport } from '../../collector/restore.ts'
import { sideOf } from '../../collector/tree-diff.ts'
import { NO_DIGEST } from '../../shared/digest.ts'
import { relativePath } from '../../shared/path.ts'
import type { Change } from '../../shared/record.ts'
import type { Version } from '../../shared/version.ts'
import { withAdditions } from '../../shared/version-extensions.ts'
import { fileVersion } from '../support/agent-parts.ts'
import { at, FakeHistory, FIRST_MS, IMAGES, LAST_MS, PACS, serveHistory } from '../support/fake-history.ts'
import { documented, fieldsOf } from '../support/json-document.ts'
import { answer } from '../support/launcher.ts'

/** Each field of it has its bytes beside it. */
const UNREADABLE = relativePath('x\xff')
const METADATA = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 1n, ctimeNs: 1n, inode: 1n, links: 1 }
const VERSIONS: Version[] = [
  withAdditions(fileVersion('x', { xattrs: [{ name: 'user.n', value: 'v' }] }), {
    holes: [{ offset: 0, length: 1 }],
    writer: { pid: 7, uid: 8, executable: '/x\xff' },
  }),
  { kind: 'symlink', ...METADATA, xattrs: [], target: 'to\xff' },
  { kind: 'block-device', ...METADATA, xattrs: [], device: 5n },
]
const ENTRIES = VERSIONS.map((version) => ({ path: UNREADABLE, position: { epoch: 1, seq: 1 }, version, absent: undefined }))
const SPAN = { from: at(FIRST_MS), until: at(LAST_MS) }
const GAP = { ...SPAN, cause: 'asleep' }

describe('docs/json.md names exactly the fields of', () => {
  it('ls', () => {
    expect(fieldsOf(...ENTRIES.map(entryFields))).toEqual(documented('ls'))
  })

  it('log', () => {
    const path = relativePath('a')
    const changes: Change[] = [
      { kind: 'epoch', agent: PACS, reason: 'first', previousEpoch: 0, previousHash: NO_DIGEST, nonce: '' },
      { kind: 'volume', volume: IMAGES, root: '/srv', mode: 'complete' },
      { kind: 'remove', volume: IMAGES, path: UNREADABLE },
      { kind: 'rename', volume: IMAGES, path, to: path },
      { kind: 'sweep', volume: IMAGES, since: 2 },
      { kind: 'gap', volume: IMAGES, ...GAP },
      { kind: 'coverage', volume: IMAGES, ...SPAN, mode: 'complete' },
      { kind: 'lost', volume: IMAGES, path, lostSeq: 2 },
      { kind: 'mark', volume: IMAGES, name: 'before' },
    ]
    const header = { previous: NO_DIGEST, epoch: 1, seq: 1, time: at(FIRST_MS) }
    const records = changes.map((change) => logFields({ record: { ...header, ...change }, version: undefined, absent: undefined }))
    const put = logFields({ record: { ...header, kind: 'put', volume: IMAGES, path }, version: fileVersion('x'), absent: undefined })
    const found = fieldsOf(...records, put).filter((name) => !name.startsWith('version.'))
    expect(found).toEqual(documented('log').filter((name) => name !== 'version.…'))
    expect(put).toMatchObject({ version: { kind: 'file' } })
  })

  it('cat', async () => {
    const history = new FakeHistory()
    const version = fileVersion('x')
    for (const { digest } of version.chunks) history.contents.set(digest, Buffer.from('x'))
    history.entries.push({ path: relativePath('a'), position: { epoch: 1, seq: 1 }, version, absent: undefined })
    const found = fieldsOf(await answer('cat', 'pacs1:images/a', '--data', await serveHistory(history)))
    expect(found.filter((name) => !documented('ls').includes(name))).toEqual(documented('cat'))
  })

  it('diff', () => {
    const sides = ENTRIES.map(sideOf)
    const [file, link, device] = sides
    const changes = [
      { path: UNREADABLE, before: file, after: link, aspects: ['kind' as const] },
      { path: UNREADABLE, before: device, after: undefined, aspects: [] },
    ]
    const found = fieldsOf(...changes.map(changeFields))
    const grouped = new Set(found.map((name) => name.replace(/^(before|after)\..*/, '$1.…').replace(/^(before|after)$/, '$1.…')))
    expect([...grouped].sort()).toEqual(documented('diff'))
    const listed = 'kind mode uid gid mtime mtimeNs size digest target targetBytes device'.split(' ').sort()
    const named = new Set(found.filter((name) => name.includes('.')).map((name) => name.replace(/^(before|after)\./, '')))
    expect([...named].sort()).toEqual(listed)
  })

  it('mark', () => {
    expect(fieldsOf(markFields({ name: 'n', time: at(LAST_MS), position: { epoch: 1, seq: 2 } }))).toEqual(documented('mark'))
  })

  it('window', () => {
    const { span } = new FakeHistory()
    const window = { ...span, gaps: [{ ...GAP, position: span.head }], coverage: [{ ...SPAN, mode: 'complete' as const }] }
    expect(fieldsOf(windowFields(window))).toEqual(documented('window'))
  })

  it('restore', () => {
    const time = at(LAST_MS)
    const report: RestoreReport = {
      agent: PACS,
      volume: IMAGES,
      path: relativePath('a'),
      to: '/x',
      dryRun: false,
      momentMs: LAST_MS,
      damaged: false,
      files: 1,
      directories: 0,
      symlinks: 0,
      hardLinks: 0,
      others: 0,
      bytes: 1,
      seconds: 1,
      kept: 0,
      fromReplica: 1,
      unverified: 0,
      torn: 0,
      point: { position: { epoch: 1, seq: 1 }, time, requestedMs: LAST_MS, next: time, gap: GAP, whole: true, coverage: undefined },
      missing: [{ path: UNREADABLE, cause: 'damage', reason: 'damaged' }],
      shortcomings: [{ path: relativePath('b'), what: 'owner', reason: 'EPERM' }],
      estimate: { seconds: 1, from: 'sample', bytesPerSecond: 1, sampledBytes: 1 },
      entries: [],
      keptPaths: new Set(),
      inPlace: {
        id: '0123456789ab',
        added: [UNREADABLE],
        replaced: [UNREADABLE],
        removed: [UNREADABLE],
        removedPaths: 1,
        removedBytes: 1,
        metadata: [UNREADABLE],
        kept: [],
        keptBytes: 1,
        bytesToWrite: 1,
        others: 1,
        inUse: [UNREADABLE],
        changed: [{ path: UNREADABLE, reason: 'r' }],
        missing: [],
      },
    }
    const massChange = { target: 'pacs1:images', root: '/x', gone: 60, share: 20, files: 50, isConfigured: true, command: 'pacsimile' }
    expect(fieldsOf(restoreFields(report, massChange))).toEqual(
      documented('restore').filter((name) => !['gap', 'estimate', 'inPlace', 'inPlace.massChange'].includes(name)),
    )
  })

  it('restore undo, restore list and restore forget', () => {
    const shortcomings = [{ path: UNREADABLE, what: 'mode' as const, reason: 'EPERM' }]
    const report = {
      id: '0123456789ab',
      to: '/x',
      steps: 1,
      troubles: [{ path: UNREADABLE, reason: 'r' }],
      shortcomings,
      done: false,
      placeStays: true,
    }
    expect(fieldsOf(undoFields(report))).toEqual(documented('restore undo'))
    const place = {
      version: 1,
      id: '0123456789ab',
      state: 'done',
      agent: PACS,
      volume: IMAGES,
      path: UNREADABLE,
      epoch: 1,
      seq: 1,
    } as const
    const note = { ...place, terms: '[]', momentMs: 1, startedMs: 1, endedMs: 1, rootMtimeNs: '1' }
    expect(fieldsOf({ restores: [listFields(note, '/x')] })).toEqual(documented('restore list'))
    expect(fieldsOf({ forgotten: ['0123456789ab'] })).toEqual(documented('restore forget'))
  })

  it('mount', () => {
    const time = at(LAST_MS)
    const point = { position: { epoch: 1, seq: 1 }, time, requestedMs: LAST_MS, next: time, gap: GAP, whole: true, coverage: undefined }
    const found = fieldsOf(mountFields({ agent: PACS, volume: IMAGES, path: UNREADABLE }, '/mnt', point))
    expect(found).toEqual(documented('mount').filter((name) => name !== 'gap'))
  })
})
