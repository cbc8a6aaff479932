/** Keys that come and go, by commands that are killed, or whose disk fails, at every step that they take. */
import { cpSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { initCollector } from '../../collector/init.ts'
import { openSlot, parseSlot, type SlotSecret } from '../../collector/repository/key-slot.ts'
import {
  addKey,
  addRecoveryKey,
  ensureKeyFile,
  findSlots,
  openKeys,
  type RepositorySecret,
  readKeyFile,
  removeKey,
} from '../../collector/repository/keys.ts'
import { readDescription } from '../../collector/repository/repository.ts'
import { ERRORS } from '../../shared/errors.ts'
import { canInject, type Run, run, SWEEP_MS_MAX, sweep, type Work } from '../support/fault-steps.ts'
import { scratchDirectory } from '../support/scratch.ts'

const MAIN = join(import.meta.dirname, '../../dist/collector/cli/main.js')
const PASSPHRASE = 'the old one'
const NEW_PASSPHRASE = 'the new one'

/** The data directory of a collector that opens with a key file, a passphrase and a recovery key. */
interface Archive {
  readonly directory: string
  readonly repository: string
  readonly id: string
  readonly dataKey: Buffer
  readonly recoveryKey: string
}

async function archive(): Promise<Archive> {
  const directory = join(scratchDirectory(), 'data')
  const { recoveryKey } = await initCollector({ dataDir: directory })
  const repository = join(directory, 'repository')
  const { id } = readDescription(repository)
  const opening = { kind: 'key-file', file: join(directory, 'keys/repository.key') } as const
  addKey(repository, id, opening, { kind: 'passphrase', passphrase: PASSPHRASE })
  return { directory, repository, id, dataKey: openKeys(repository, id, opening), recoveryKey }
}

function copyOf(whole: Archive): Archive {
  const directory = join(scratchDirectory(), 'data')
  cpSync(whole.directory, directory, { recursive: true })
  return { ...whole, directory, repository: join(directory, 'repository') }
}

type Kind = RepositorySecret['kind']

function waysInto({ directory, recoveryKey }: Archive): Record<Kind, RepositorySecret> {
  return {
    'key-file': { kind: 'key-file', file: join(directory, 'keys/repository.key') },
    'passphrase': { kind: 'passphrase', passphrase: PASSPHRASE },
    'recovery': { kind: 'recovery', recoveryKey },
  }
}

interface Change {
  readonly what: string
  readonly args: (of: Archive) => readonly string[]
  readonly environment?: (of: Archive) => NodeJS.ProcessEnv
  /** What is to open afterwards, by what the command said; undefined where it has said nothing yet. */
  readonly added?: (of: Archive, said: string) => RepositorySecret | undefined
  /** What is to open no more. */
  readonly removed?: Kind
  readonly isSlow?: boolean
}

const RECOVERY: Change = { what: 'adds a recovery key', args: () => ['add', 'recovery'], added: (_, said) => recoveryKeyIn(said) }

const CHANGES: readonly Change[] = [
  RECOVERY,
  {
    what: 'adds a passphrase',
    args: () => ['add', 'passphrase'],
    isSlow: true,
    environment: () => ({ PACSIMILE_NEW_PASSPHRASE: NEW_PASSPHRASE }),
    added: () => ({ kind: 'passphrase', passphrase: NEW_PASSPHRASE }),
  },
  { what: 'removes a passphrase', args: (of) => ['remove', slotOf(of, 'passphrase')], removed: 'passphrase' },
  {
    what: 'adds a key file',
    args: ({ directory }) => ['add', 'key-file', '--file', join(directory, 'keys/new.key')],
    added: ({ directory }) => ({ kind: 'key-file', file: join(directory, 'keys/new.key') }),
  },
  {
    what: 'removes a key file',
    args: (of) => ['remove', slotOf(of, 'key-file')],
    environment: ({ recoveryKey }) => ({ PACSIMILE_RECOVERY_KEY: recoveryKey }),
    removed: 'key-file',
  },
]

function slotOf({ repository, id }: Archive, kind: Kind): string {
  return findSlots(repository, id).find(({ slot }) => slot?.kind === kind)?.id ?? 'none'
}

function recoveryKeyIn(said: string): RepositorySecret | undefined {
  const [recoveryKey] = /([0-9A-Z]{4}-){10,}[0-9A-Z]{4}/.exec(said) ?? []
  return recoveryKey === undefined ? undefined : { kind: 'recovery', recoveryKey }
}

function workOf({ args, environment }: Change, of: Archive): Work & Archive & { readonly slot: string } {
  const named = args(of)
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN, 'keys', ...named, '--data', of.directory]
  return { ...of, command, environment: environment?.(of) ?? {}, slot: named[1] ?? '' }
}

function opens({ repository, id, dataKey }: Archive, secret: RepositorySecret): boolean {
  try {
    return openKeys(repository, id, secret).equals(dataKey)
  } catch {
    return false
  }
}

const slotsOf = ({ repository, id }: Archive): string[] => findSlots(repository, id).map(({ slot, damage }) => slot?.kind ?? damage)
const filesOf = ({ repository }: Archive): string[] => readdirSync(join(repository, 'keys'))

/** Whether a file among the slots, whatever its name is, is opened by what was removed. */
function isLeft(of: Archive, removed: Kind): boolean {
  const bytes = removed === 'passphrase' ? Buffer.from(PASSPHRASE) : readKeyFile(join(of.directory, 'keys/repository.key'))
  const secret: SlotSecret = { kind: removed, bytes }
  return filesOf(of).some((name) => {
    try {
      return openSlot(of.id, parseSlot(readFileSync(join(of.repository, 'keys', name), 'utf8'), of.id), secret) !== undefined
    } catch {
      return false
    }
  })
}

/** What holds after a command that was not let finish: the keys are as they were, or as they are to be. */
function expectEitherWay({ added, removed }: Change, of: Archive, before: number, { stdout, stderr, status }: Run): void {
  for (const secret of Object.values(waysInto(of))) if (secret.kind !== removed) expect(opens(of, secret), secret.kind).toBe(true)
  const now = slotsOf(of).length
  expect(now === before || now === before + (removed === undefined ? 1 : -1)).toBe(true)
  const secret = added?.(of, stdout)
  // A slot for a recovery key that nobody was shown would count as a way in, and the last one that somebody has could be removed.
  if (now > before) expect(secret !== undefined && opens(of, secret)).toBe(true)
  if (status === undefined) return
  expect([ERRORS.io.exit, ERRORS.space.exit]).toContain(status)
  expect(stderr).toMatch(/(Writing|Removing) \S+\/keys\/\S+: E[A-Z]+/)
}

/** What the same command does once more, with nothing in its way. @returns what opens now, and did not */
async function again({ added }: Change, of: Archive, slot: string): Promise<RepositorySecret | undefined> {
  const { repository, id } = of
  const ways = waysInto(of)
  if (added === undefined) {
    removeKey(repository, id, ways.recovery, slot)
    return undefined
  }
  let secret = added(of, '')
  if (secret === undefined)
    await addRecoveryKey(repository, id, ways['key-file'], async ({ recoveryKey }) => {
      secret = { kind: 'recovery', recoveryKey }
      await Promise.resolve()
    })
  else {
    if (secret.kind === 'key-file') ensureKeyFile(secret.file)
    addKey(repository, id, ways['key-file'], secret)
  }
  return secret
}

async function expectFinished(change: Change, of: Archive, slot: string, isDone: boolean): Promise<void> {
  const { added, removed } = change
  // What is done already is refused by its name; but a recovery key is another one each time.
  const refusal = removed === undefined ? 'already-exists' : 'not-found'
  if (isDone && (removed !== undefined || added?.(of, '') !== undefined))
    await expect(again(change, of, slot)).rejects.toMatchObject({ code: refusal })
  else {
    const secret = await again(change, of, slot)
    expect(added === undefined || (secret !== undefined && opens(of, secret))).toBe(true)
  }
  for (const way of Object.values(waysInto(of))) expect(opens(of, way), way.kind).toBe(way.kind !== removed)
  if (removed !== undefined) expect(isLeft(of, removed)).toBe(false)
  for (const directory of ['keys', 'repository/keys'])
    expect(readdirSync(join(of.directory, directory)).filter((name) => name.startsWith('.'))).toEqual([])
}

describe.skipIf(!canInject)('a command that', () => {
  it('adds a recovery key adds none that it cannot show', async () => {
    const of = await archive()
    const before = slotsOf(of)
    const { status, stderr } = await run({ command: ['sh', '-c', `exec ${workOf(RECOVERY, of).command.join(' ')} > /dev/full`] })
    expect({ status, stderr }).toEqual({ status: ERRORS.space.exit, stderr: expect.stringMatching(/Writing the answer: ENOSPC/) })
    expect(slotsOf(of)).toEqual(before)
  })

  it.each(CHANGES)(
    '$what leaves the keys as they were or as they are to be, wherever it ends, and can be given again',
    async (change) => {
      const whole = await archive()
      const before = slotsOf(whole).length
      const runs = await sweep({
        // Each slot that is tried costs a passphrase its fifth of a second.
        sampleEvery: change.isSlow === true ? 4 : 2,
        prepare: () => workOf(change, copyOf(whole)),
        judge: async (work, ended) => {
          expectEitherWay(change, work, before, ended)
          await expectFinished(change, work, work.slot, slotsOf(work).length !== before)
        },
      })
      expect(runs).toBeGreaterThan(0)
    },
    SWEEP_MS_MAX,
  )
})
