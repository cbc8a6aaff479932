/** `pacsimile collector init|run` and `token create`: the side that keeps history. */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import { dataOption, jsonOption } from './options.ts'
import { paint, say, sayJson } from './output.ts'
import { askSecret, givenSecret } from './secret.ts'
import { parseDuration } from './target.ts'

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
      jsonOption(dataOption(options))
        .option('listen', { type: 'string', describe: 'HOST:PORT for agents', default: '0.0.0.0:7443', requiresArg: true })
        .option('key-file', { type: 'string', describe: 'Wrap the repository key by this key file', requiresArg: true })
        .option('passphrase', {
          type: 'boolean',
          describe: 'Wrap it by a passphrase, asked for (or PACSIMILE_PASSPHRASE); the service then needs it at each start',
          default: false,
        })
        .example('$0 collector init', 'with a key file under DATA/keys, so that the service starts unattended'),
    async ({ data, listen, keyFile, passphrase, json }) => {
      const secret = await initSecret(keyFile, passphrase)
      const { initCollector } = await import('../init.ts')
      const dataDir = resolve(data)
      const made = await initCollector({ dataDir, listen, ...secret })
      if (json) {
        sayJson({
          repository: made.repositoryId,
          recoveryKey: made.recoveryKey,
          keyFile: made.keyFile,
          caFingerprint: made.caFingerprint,
          listen,
          dataDir,
        })
        return
      }
      say(`Made a collector in ${dataDir}, listening on ${listen} once it runs.`)
      say()
      say(paint('bold', 'Recovery key, shown this once:'))
      say()
      say(`    ${paint('cyan', made.recoveryKey)}`)
      say()
      say('It opens the repository when every other key is lost. Print it and lock it away from this')
      say('machine: without it and without the key, nobody can ever read the archive, not even you.')
      say()
      if (made.keyFile === undefined) say('The repository key is wrapped by your passphrase, which each start of the collector needs.')
      else say(`The key for unattended starts is ${made.keyFile} (mode 0600). Whoever can read it can read the archive.`)
      say(`Authority (SHA-256): ${made.caFingerprint}`)
      say()
      const where = `--data ${dataDir}`
      say('Next:')
      say(`    pacsimile collector run ${where}`)
      say(`    pacsimile token create ${where}`)
    },
  )
}

async function initSecret(keyFile: string | undefined, asks: boolean): Promise<{ passphrase?: string; keyFile?: string }> {
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

export function tokenCommand(yargs: Argv): Argv {
  return yargs.command('token', 'Tokens with which agents enrol', (group) =>
    group
      .command(
        'create',
        'Make a token that enrols one agent, once',
        (options) =>
          jsonOption(dataOption(options))
            .option('ttl', { type: 'string', describe: 'How long it is valid', default: '1h', requiresArg: true })
            .option('agent', {
              type: 'string',
              describe: 'Only for the agent of this name, also where it is enrolled already (a new host takes its place)',
              requiresArg: true,
            }),
        async ({ data, ttl, agent, json }) => {
          const { createToken } = await import('../identity.ts')
          const ttlMs = parseDuration(ttl, '--ttl')
          const token = createToken(resolve(data), agent === undefined ? { ttlMs } : { ttlMs, agent })
          if (json) sayJson({ token })
          else say(token)
        },
      )
      .demandCommand(1, 'Name what to do: create'),
  )
}
