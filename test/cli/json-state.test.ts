/** What `--json` answers of installations and their state: every field that docs/json.md names is given, and none that it does not name. */
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Enrolled } from '../../agent/enroll.ts'
import type { AgentScanReport, AgentStatus } from '../../agent/status.ts'
import { initFromFields } from '../../collector/cli/init-from.ts'
import { statusFields } from '../../collector/cli/status-command.ts'
import type { CopyReport } from '../../collector/copier.ts'
import type { CopyVerifyReport } from '../../collector/copy-verify.ts'
import type { CollectorStatus, ReplicaStatus } from '../../collector/status.ts'
import { serveLocal } from '../../shared/local-api.ts'
import { FakeHistory, serveHistory } from '../support/fake-history.ts'
import { documented, fieldsOf } from '../support/json-document.ts'
import { answer } from '../support/launcher.ts'
import { ReadingPort } from '../support/reading-port.ts'
import { scratchDirectory } from '../support/scratch.ts'

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
describe('docs/json.md names exactly the fields of', () => {
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

  it('collector init --from', () => {
    const damage = [{ file: 'f', offset: 1, reason: 'r' }]
    const made = { repositoryId: 'r', caFingerprint: 'c', keyFile: '/k', hasIdentity: true, files: 1, bytes: 1, damage }
    const fields = initFromFields(made, { dataDir: '/d', listen: 'h:1', from: 'fs:/usb' })
    expect(fieldsOf(fields)).toEqual(documented('collector init --from'))
  })
})
