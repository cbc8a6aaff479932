/**
 * `pacsimile keys`: which secrets open the repository, one more, one less.
 *
 * No content is written again: each secret wraps the one data key. Invariant: a new secret is asked for in a way that leaves no
 * trace, and a removal never takes the last way in. It prevents an archive that nobody can open because a key was to be
 * changed.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import type { FoundSlot, RepositorySecret } from '../repository/keys.ts'
import { sayJson } from './json.ts'
import { jsonOption, sourceOptions, withExamples } from './options.ts'
import { note, paint, say, wasSaid } from './output.ts'
import { askSecret, secretFor } from './secret.ts'
import { type RepositoryPlace, repositoryPlace } from './source.ts'
import { sayTable } from './table.ts'

const KINDS = ['recovery', 'key-file', 'passphrase'] as const
type Kind = (typeof KINDS)[number]

export function keysCommand(yargs: Argv): Argv {
  return yargs.command('keys', 'The secrets that open the repository', (group) =>
    removeCommand(addCommand(listCommand(group))).demandCommand(1, 'Name what to do: list, add or remove'),
  )
}

function listCommand(yargs: Argv): Argv {
  return yargs.command(
    'list',
    'Show the key slots; no key is needed',
    (options) => withExamples(jsonOption(sourceOptions(options)), 'keys list', 'keys list --repository /mnt/copy'),
    async ({ data, repository, json }) => {
      const { directory, id } = await repositoryPlace({ data, repository })
      const { findSlots } = await import('../repository/keys.ts')
      const slots = findSlots(directory, id)
      if (json) sayJson({ repository: id, slots: slots.map(slotFields) })
      else saySlots(slots)
    },
  )
}

function slotFields({ id, slot, damage }: FoundSlot): object {
  return { id, kind: slot?.kind ?? null, created: slot?.created ?? null, damage }
}

function saySlots(slots: readonly FoundSlot[]): void {
  const columns = [{ title: 'SLOT' }, { title: 'OPENS WITH' }, { title: 'MADE' }]
  const rows = slots.map(({ id, slot, damage }) =>
    slot === undefined ? [id, paint('red', 'nothing'), `damaged: ${damage}`] : [id, slot.kind, slot.created],
  )
  sayTable(columns, rows)
}

function addCommand(yargs: Argv): Argv {
  return yargs.command(
    'add <kind>',
    'Let another secret open the repository too',
    (options) =>
      withExamples(
        jsonOption(sourceOptions(options.positional('kind', { choices: KINDS, demandOption: true, describe: 'What it is' })))
          .option('file', { type: 'string', describe: 'With key-file: the file, which is made if it does not exist', requiresArg: true })
          .epilogue('A new passphrase is asked for twice, or taken from PACSIMILE_NEW_PASSPHRASE.'),
        'keys add recovery',
        'keys add key-file --file /etc/pacsimile/new.key    # then name it in collector.toml',
      ),
    async ({ data, repository, keyFile, kind, file, json }) => {
      const place = await repositoryPlace({ data, repository })
      const sayIt = json ? sayJson : sayAdded
      await addSecret(place, await secretFor(place.directory, keyFile), kind, file, sayIt)
    },
  )
}

interface Added {
  readonly id: string
  readonly kind: Kind
  /** Shown this once. */
  readonly recoveryKey?: string
  readonly keyFile?: string
}

async function addSecret(
  { directory, id }: RepositoryPlace,
  opening: RepositorySecret,
  kind: Kind,
  file: string | undefined,
  sayIt: (added: Added) => void,
): Promise<void> {
  const { addKey, addRecoveryKey, ensureKeyFile } = await import('../repository/keys.ts')
  if ((kind === 'key-file') !== (file !== undefined)) throw new PacsimileError('usage', '--file belongs to key-file, and key-file needs it')
  if (kind === 'recovery') {
    await addRecoveryKey(directory, id, opening, async (added) => {
      sayIt({ kind, ...added })
      await wasSaid()
    })
    return
  }
  if (file === undefined) {
    sayIt({ kind, id: addKey(directory, id, opening, { kind: 'passphrase', passphrase: await newPassphrase() }) })
    return
  }
  const keyFile = resolve(file)
  ensureKeyFile(keyFile)
  sayIt({ kind, keyFile, id: addKey(directory, id, opening, { kind: 'key-file', file: keyFile }) })
}

async function newPassphrase(): Promise<string> {
  const given = process.env['PACSIMILE_NEW_PASSPHRASE']
  if (given !== undefined && given !== '') return given
  if (!process.stdin.isTTY)
    throw new PacsimileError('key-missing', 'No new passphrase: PACSIMILE_NEW_PASSPHRASE is not set, and nobody can be asked')
  const typed = await askSecret('New passphrase: ')
  if (typed === '') throw new PacsimileError('usage', 'The passphrase is empty')
  if ((await askSecret('Once more: ')) !== typed) throw new PacsimileError('usage', 'The two passphrases differ')
  return typed
}

function sayAdded({ id, kind, recoveryKey, keyFile }: Added): void {
  if (recoveryKey !== undefined) {
    say(recoveryKey)
    note(`Slot ${id}. This recovery key is shown once and stored nowhere: print it, and lock it away.`)
  } else if (keyFile === undefined) note(`Slot ${id} opens with the new ${kind}.`)
  else note(`Slot ${id} opens with ${keyFile}. A collector that is to start with it needs it as keyFile in collector.toml.`)
}

function removeCommand(yargs: Argv): Argv {
  return yargs.command(
    'remove <slot>',
    'End what one secret opens; the last ways in are kept',
    (options) =>
      withExamples(
        sourceOptions(options.positional('slot', { type: 'string', demandOption: true, describe: 'As `keys list` names it' })),
        'keys remove 3f9c01ab',
      ),
    async ({ data, repository, keyFile, slot }) => {
      const { directory, id } = await repositoryPlace({ data, repository })
      const { removeKey } = await import('../repository/keys.ts')
      removeKey(directory, id, await secretFor(directory, keyFile), slot)
      note(`Slot ${slot} is removed. Whoever holds its secret and an older copy of the slot can still open what they hold.`)
    },
  )
}
