/**
 * `pacsimile collector init` and `collector run`: the side that keeps history.
 *
 * Invariant: the recovery key is shown by `init`, once, with the place where it must go, and by nothing else ever. It
 * prevents an archive that nobody can open on the day on which it is needed.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import type { InitResult } from '../init.ts'
import { asUsage } from './command-error.ts'
import { bucketOptions, definitionOf, PLACE_HELP } from './copy-options.ts'
import { sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { paint, say } from './output.ts'
import { askSecret, givenSecret } from './secret.ts'

export function collectorCommand(yargs: Argv): Argv {
  return yargs.command('collector', 'Set up and run the collector', (group) =>
    runCommand(initCommand(group)).demandCommand(1, 'Name what to do: init or run'),
  )
}

function initCommand(yargs: Argv): Argv {
  return yargs.command(
    'init',
    'Make the data directory: authority, repository key, configuration',
    (options) =>
      withExamples(
        bucketOptions(jsonOption(dataOption(options)))
          .option('listen', { type: 'string', describe: 'HOST:PORT for agents', default: '0.0.0.0:7443', requiresArg: true })
          .option('key-file', { type: 'string', describe: 'Wrap the repository key by this key file', requiresArg: true })
          .option('passphrase', {
            type: 'boolean',
            describe: 'Wrap it by a passphrase, asked for (or PACSIMILE_PASSPHRASE); the service then needs it at each start',
            default: false,
          })
          .option('from', { type: 'string', describe: `Make it from this copy of a repository: ${PLACE_HELP}`, requiresArg: true })
          .option('take-over', {
            type: 'boolean',
            describe: 'With --from: also where the collector that writes the copy was at work a moment ago; it is shut out',
            default: false,
          })
          .option('copy-name', {
            type: 'string',
            describe: 'With --from: what that copy is called here',
            default: 'origin',
            requiresArg: true,
          }),
        'collector init    # with a key file in DATA/keys, so that the service starts unattended',
        'collector init --data /srv/pacsimile --listen 10.0.0.5:7443 --passphrase',
        'collector init --from fs:/mnt/usb/pacsimile --key-file /mnt/safe/repository.key',
      ),
    async ({ data, listen, keyFile, passphrase, from, takeOver, copyName, json, ...bucket }) => {
      await checkListen(listen)
      if (from !== undefined) {
        const { initFromCopy } = await import('./init-from.ts')
        await initFromCopy(definitionOf(from, bucket), { data, listen, keyFile, takeOver, copyName, json })
        return
      }
      if (takeOver) throw new PacsimileError('usage', '--take-over belongs to --from')
      const secret = await initSecret(keyFile, passphrase)
      const { initCollector } = await import('../init.ts')
      const dataDir = resolve(data)
      const made = await initCollector({ dataDir, listen, ...secret })
      if (json) {
        const { repositoryId: repository, recoveryKey, caFingerprint } = made
        sayJson({ repository, recoveryKey, keyFile: made.keyFile ?? null, caFingerprint, listen, dataDir })
      } else sayMade(made, dataDir, listen)
    },
  )
}

/** @throws usage */
async function checkListen(listen: string): Promise<void> {
  const { checkedConfig } = await import('../config.ts')
  try {
    checkedConfig({ listen })
  } catch (error) {
    throw asUsage(error)
  }
}

function sayMade(made: InitResult, dataDir: string, listen: string): void {
  const edge = '-'.repeat(made.recoveryKey.length + 4)
  say(`Made a collector in ${dataDir}, listening on ${listen} once it runs.`)
  say()
  say(`    ${paint('bold', 'Recovery key, shown this once')}`)
  say(`    +${edge}+`)
  say(`    |  ${paint('cyan', made.recoveryKey)}  |`)
  say(`    +${edge}+`)
  say()
  say('It opens the repository when every other key is lost. Print it and lock it away from this')
  say('machine: without it and without the key, nobody can ever read the archive, not even you.')
  say()
  if (made.keyFile === undefined) say('The repository key is wrapped by your passphrase, which each start of the collector needs.')
  else say(`The key for unattended starts is ${made.keyFile} (mode 0600). Whoever can read it can read the archive.`)
  say(`Certificate authority (SHA-256): ${made.caFingerprint}`)
  say()
  const port = listen.slice(listen.lastIndexOf(':') + 1)
  say('Next, here:')
  say(`    pacsimile collector run --data ${dataDir}`)
  say(`    pacsimile token create --data ${dataDir}`)
  say('and on the host to protect:')
  say(`    pacsimile agent enroll --collector wss://THIS-HOST:${port} --token TOKEN --volume images=/srv/pacs`)
  say('    pacsimile agent run')
}

async function initSecret(keyFile: string | undefined, asks: boolean): Promise<{ passphrase?: string; keyFile?: string }> {
  if (asks && keyFile !== undefined) throw new PacsimileError('usage', '--passphrase and --key-file exclude each other')
  const given = givenSecret(keyFile)
  if (given?.kind === 'key-file') return { keyFile: given.file }
  if (given?.kind === 'passphrase') return { passphrase: given.passphrase }
  if (!asks) return {}
  if (!process.stdin.isTTY) throw new PacsimileError('key-missing', '--passphrase asks at a terminal; give it in PACSIMILE_PASSPHRASE here')
  const passphrase = await askSecret('New passphrase: ')
  if ((await askSecret('The same again: ')) !== passphrase) throw new PacsimileError('usage', 'The two passphrases differ')
  return { passphrase }
}

function runCommand(yargs: Argv): Argv {
  return yargs.command(
    'run',
    'Run the collector: take in what agents send, keep the replica',
    (options) =>
      jsonOption(dataOption(options)).option('key-file', {
        type: 'string',
        describe: 'Key file of the repository, where it is not the configured one',
        requiresArg: true,
      }),
    async ({ data, keyFile }) => {
      const [{ runCollector }, { readCollectorConfig }] = await Promise.all([import('../main.ts'), import('../config.ts')])
      const dataDir = resolve(data)
      let secret = givenSecret(keyFile)
      if (secret === undefined && readCollectorConfig(dataDir).keyFile === undefined && process.stdin.isTTY) {
        secret = { kind: 'passphrase', passphrase: await askSecret('Passphrase of the repository: ') }
      }
      process.exitCode = await runCollector({ dataDir, secret })
    },
  )
}
