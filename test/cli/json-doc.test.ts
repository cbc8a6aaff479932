/** docs/json.md says what `--json` answers: every field that it names is given, and none that it does not name. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Enrolled } from '../../agent/enroll.ts'
import type { AgentScanReport, AgentStatus } from '../../agent/status.ts'
import type { CheckReport } from '../../collector/check.ts'
import { checkFields } from '../../collector/cli/check-command.ts'
import { changeFields } from '../../collector/cli/diff-command.ts'
import { entryFields } from '../../collector/cli/entry-row.ts'
import { holdFields } from '../../collector/cli/hold-command.ts'
import { initFromFields } from '../../collector/cli/init-from.ts'
import { logFields } from '../../collector/cli/log-row.ts'
import { markFields } from '../../collector/cli/mark-command.ts'
import { mountFields } from '../../collector/cli/mount-command.ts'
import { pruneFields } from '../../collector/cli/prune-command.ts'
import { rebuildFields } from '../../collector/cli/rebuild-command.ts'
import { restoreFields } from '../../collector/cli/restore-row.ts'
import { listFields, undoFields } from '../../collector/cli/restore-undo.ts'
import { statusFields } from '../../collector/cli/status-command.ts'
import { windowFields } from '../../collector/cli/window-command.ts'
import type { CopyReport } from '../../collector/copier.ts'
import type { CopyVerifyReport } from '../../collector/copy-verify.ts'
import type { RestoreReport } from '../../collector/restore.ts'
import type { ScrubReport } from '../../collector/scrub.ts'
import type { CollectorStatus, ReplicaStatus } from '../../collector/status.ts'
import { sideOf } from '../../collector/tree-diff.ts'
import { NO_DIGEST } from '../../shared/digest.ts'
import { serveLocal } from '../../shared/local-api.ts'
import { label, relativePath } from '../../shared/path.ts'
import type { Change } from '../../shared/record.ts'
import type { Version } from '../../shared/version.ts'
import { withAdditions } from '../../shared/version-extensions.ts'
import { fileVersion } from '../support/agent-parts.ts'
import { at, FakeHistory, FIRST_MS, IMAGES, LAST_MS, PACS, serveHistory } from '../support/fake-history.ts'
import { answer } from '../support/launcher.ts'
import { ReadingPort } from '../support/reading-port.ts'
import { scratchDirectory } from '../support/scratch.ts'

const DOCUMENT = readFileSync(join(import.meta.dirname, '../../docs/json.md'), 'utf8')

/** The fields that the document names for a command. */
function documented(command: string): string[] {
  const [, section = ''] = DOCUMENT.split(`## \`${command}\`\n`)
  const [table = ''] = section.split('\n## ')
  return [...table.matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1] ?? '').sort()
}

/** Every field of the documents, as the document writes it: `a.b`, `list[].c`. */
function fieldsOf(...answers: unknown[]): string[] {
  const found = new Set<string>()
  const visit = (value: unknown, name: string): void => {
    if (Array.isArray(value)) for (const item of value) visit(item, `${name}[]`)
    else if (typeof value === 'object' && value !== null)
      for (const [key, field] of Object.entries(value)) visit(field, name === '' ? key : `${name}.${key}`)
    else if (value !== undefined) found.add(name)
  }
  for (const given of answers) visit(given, '')
  return [...found].sort()
}

const REPLICA: ReplicaStatus = {
  state: 'rewinding',
  reason: 'r',
  sinceMs: 1,
  at: { epoch: 1, seq: 2 },
  clean: { epoch: 1, seq: 1 },
  expectedUntilMs: 1,
  expectedReason: 'move',
  drifts: 1,
  driftPath: '/drift',
}
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
const COPY: CopyReport = {
  name: 'usb',
  url: 'fs:/usb',
  state: 'failing',
  reason: 'away',
  behindBytes: 1,
  behindSinceMs: 1,
  currentAtMs: 1,
  verifiedSinceMs: 1,
  repaired: 1,
  damaged: 1,
}
const VERIFIED: CopyVerifyReport = {
  copy: 'usb',
  url: 'fs:/usb',
  files: 1,
  bytes: 1,
  seconds: 1,
  findings: [{ file: 'f', kind: 'damaged', offset: 1, reason: 'r', isRepaired: true }],
  better: [{ file: 'f', reason: 'r' }],
}
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
    expect(fieldsOf(restoreFields(report))).toEqual(
      documented('restore').filter((name) => name !== 'gap' && name !== 'estimate' && name !== 'inPlace'),
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
    }
    expect(fieldsOf(checkFields(report, '/r'))).toEqual(documented('check'))
  })

  it('status and wait', async () => {
    const volume = { name: 'images', root: '/srv', mode: 'complete', state: 'watching', reason: '', gaps: 1 } as const
    const agent = { name: 'pacs1', connected: true, sinceMs: 1, clockSkewMs: 1, epoch: 1, head: 1, acked: 1, applied: 1 }
    const status: CollectorStatus = {
      repository: 'r',
      dataDir: '/d',
      listen: 'h:1',
      startedMs: 1,
      failure: 'full',
      rebuilding: { records: 1, percent: 1 },
      damage: 0,
      scrub: { startedMs: 1, verifiedBytes: 1, totalBytes: 1, allVerifiedSinceMs: 1, repaired: 1 },
      copies: [COPY],
      agents: [
        {
          ...agent,
          pending: 0,
          spoolBytes: 0,
          lagMs: 0,
          volumes: [{ ...volume, lastGapMs: 1, replicaPath: '/r', replicaProblems: 0, replica: REPLICA }],
        },
      ],
    }
    const standing = { accepted: { epoch: 0, seq: 0 }, expected: { fromMs: 1, untilMs: 2, reason: 'move' } }
    const stop = { phase: 'paused', reason: 'r', sinceMs: 1, at: { epoch: 1, seq: 2 }, head: { epoch: 1, seq: 3 }, isKnown: true }
    const data = await serveHistory(new FakeHistory(), {
      replicaResume: () => Promise.resolve({ ...standing, stop: { ...stop, clean: { epoch: 1, seq: 1 } } }),
      status: () => Promise.resolve(status),
      copies: () => Promise.resolve([COPY]),
      copyAdd: () => Promise.resolve({}),
      copyVerify: () => Promise.resolve(VERIFIED),
      wait: () => Promise.resolve({ agents: [{ agent: 'pacs1', epoch: 1, seq: 1 }] }),
    })
    expect(fieldsOf(await answer('status', '--data', data))).toEqual(documented('status'))
    const resumed = await answer('replica', 'resume', 'pacs1:images', '--data', data)
    const nulls = fieldsOf({ ...(resumed as object), at: null, clean: null })
    expect([...new Set([...nulls, ...fieldsOf(resumed)])].sort()).toEqual(documented('replica resume'))
    expect(fieldsOf(await answer('wait', '--data', data))).toEqual(documented('wait'))
    expect(fieldsOf(await answer('copy', 'list', '--data', data))).toEqual(documented('copy list'))
    expect(fieldsOf(await answer('copy', 'verify', 'usb', '--data', data))).toEqual(documented('copy verify'))
    expect(fieldsOf(await answer('copy', 'add', 'usb', 'fs:/usb', '--data', data))).toEqual(documented('copy add'))
    const named = statusFields({
      ...status,
      agents: status.agents.map((one) => ({ ...one, volumes: [{ ...one.volumes[0], root: 'x\xff' }] })),
    } as never)
    expect(fieldsOf(named)).toContain('agents[].volumes[].rootBytes')
  })

  it('agent status', async () => {
    const status: AgentStatus = {
      agent: 'pacs1',
      collector: 'wss://h:1',
      stateDir: '/s',
      pid: 1,
      supervisor: 1,
      startedMs: 1,
      repository: 'r',
      clockSkewMs: 0,
      epoch: 1,
      link: { state: 'down', sinceMs: 1, lastError: 'refused' },
      headSeq: 1,
      headMs: 1,
      ackedSeq: 1,
      pending: 0,
      dirty: 0,
      pinned: 0,
      heldBytes: 0,
      spoolBytes: 0,
      spoolQuotaBytes: 1,
      spoolFullInSeconds: 60,
      journalLag: { changes: 1, p50Ms: 1, p99Ms: 1, maxMs: 1 },
      alarms: ['full'],
      volumes: [
        {
          name: 'images',
          path: '/srv',
          mode: 'complete',
          state: 'watching',
          reason: '',
          coveredUntilMs: 1,
          silentMs: 0,
          unannounced: 0,
          gaps: 0,
          foreign: ['/srv/m'],
          lastScan: { endedMs: 1, durationMs: 1, differences: 0, unannounced: 0 },
          unreadable: [{ path: 'x', reason: 'EIO' }],
          rotten: [{ path: 'x', foundMs: 1 }],
        },
      ],
    }
    const state = scratchDirectory()
    const server = await serveLocal(join(state, 'agent.sock'), { status: () => Promise.resolve(status) })
    onTestFinished(() => server.close())
    expect(fieldsOf(await answer('agent', 'status', '--state', state))).toEqual(documented('agent status'))
  })

  it('agent scan', async () => {
    const volumes: AgentScanReport[] = [
      { name: 'images', method: 'walk', reason: 'deep', entries: 2, seconds: 1, differences: 1, unannounced: 1 },
    ]
    const state = scratchDirectory()
    const asked: unknown[] = []
    const server = await serveLocal(join(state, 'agent.sock'), {
      scan: (body) => {
        asked.push(body)
        return Promise.resolve({ volumes })
      },
    })
    onTestFinished(() => server.close())
    expect(fieldsOf(await answer('agent', 'scan', '--deep', '--state', state))).toEqual(documented('agent scan'))
    expect(asked).toEqual([{ deep: true }])
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

  it('collector init --from', () => {
    const damage = [{ file: 'f', offset: 1, reason: 'r' }]
    const made = { repositoryId: 'r', caFingerprint: 'c', keyFile: '/k', hasIdentity: true, files: 1, bytes: 1, damage }
    const fields = initFromFields(made, { dataDir: '/d', listen: 'h:1', from: 'fs:/usb' })
    expect(fieldsOf(fields)).toEqual(documented('collector init --from'))
  })

  it('restorer token, enroll, list, password and revoke', async () => {
    const port = await ReadingPort.open()
    const at = ['--data', port.dataDir]
    const made = (await answer('restorer', 'token', 'radiology', '--allow', 'pacs1', '--allow', 'pacs2:db', ...at)) as { token: string }
    expect(fieldsOf(made)).toEqual(documented('restorer token'))
    const identity = join(scratchDirectory(), 'restorer')
    const enrol = ['restorer', 'enroll', 'radiology', '--collector', port.url, '--token', made.token, '--identity', identity]
    expect(fieldsOf(await answer(...enrol))).toEqual(documented('restorer enroll'))
    expect(fieldsOf(await answer('restorer', 'password', 'radiology', ...at))).toEqual(documented('restorer password'))
    expect(fieldsOf(await answer('restorer', 'list', ...at))).toEqual(documented('restorer list'))
    expect(fieldsOf(await answer('restorer', 'revoke', 'radiology', ...at))).toEqual(documented('restorer revoke'))
    expect(await answer('restorer', 'list', ...at)).toMatchObject({
      restorers: [{ state: 'revoked', password: false, allowed: ['pacs1', 'pacs2:db'] }],
    })
  })

  it('collector init, token create, keys and agent enroll', async () => {
    const data = join(scratchDirectory(), 'data')
    expect(fieldsOf(await answer('collector', 'init', '--data', data))).toEqual(documented('collector init'))
    expect(fieldsOf(await answer('token', 'create', '--data', data))).toEqual(documented('token create'))
    expect(fieldsOf(await answer('keys', 'list', '--data', data))).toEqual(documented('keys list'))
    const added = [await answer('keys', 'add', 'recovery', '--data', data)]
    added.push(await answer('keys', 'add', 'key-file', '--file', join(data, 'new.key'), '--data', data))
    expect(fieldsOf(...added)).toEqual(documented('keys add'))
    const enrolled: Enrolled = { agent: 'pacs1', collector: 'wss://h:1', repository: 'r', lastEpoch: 0 }
    expect(fieldsOf({ ...enrolled, stateDir: '/s' })).toEqual(documented('agent enroll'))
  })
})
