/**
 * `pacsimile copy`: the further places of the repository.
 *
 * Each is asked of the running collector, and done on its data directory where none runs. Invariant: taking a copy away from the
 * list never touches what is there. It prevents the one place that is left from being emptied by a mistyped name.
 */
import { statSync } from 'node:fs'
import type { Argv } from 'yargs'
import { label } from '../../shared/path.ts'
import type { CopyReport } from '../copier.ts'
import type { NamedDefinition } from '../copy-definition.ts'
import { askCollector } from './admin-call.ts'
import { dataDirectory, orOnData } from './copy-data.ts'
import { bucketOptions, definitionOf, PLACE_HELP } from './copy-options.ts'
import { sayCopies } from './copy-row.ts'
import { verifyCommand } from './copy-verify.ts'
import { sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { note, say, warn } from './output.ts'

const NAME = { type: 'string', demandOption: true, describe: 'What the copy is called here' } as const

export function copyCommand(yargs: Argv): Argv {
  return yargs.command('copy', 'Further places of the repository', (group) =>
    verifyCommand(removeCommand(addCommand(listCommand(group)))).demandCommand(1, 'Name what to do: list, add, remove or verify'),
  )
}

function listCommand(yargs: Argv): Argv {
  return yargs.command(
    'list',
    'Show the copies, and how far each is',
    (options) => withExamples(jsonOption(dataOption(options)), 'copy list'),
    async ({ data, json }) => {
      const copies = await orOnData(
        async () => (await askCollector(data, 'copies', {})) as CopyReport[],
        async () => {
          const { definitionsIn } = await import('../copy-definition.ts')
          return definitionsIn(await dataDirectory(data)).map(statusAtRest)
        },
      )
      if (json) sayJson({ copies })
      else if (copies.length === 0) say('The repository has no copy. Add one with `pacsimile copy add NAME URL`.')
      else sayCopies(copies)
    },
  )
}

function statusAtRest({ name, definition: { url } }: NamedDefinition): CopyReport {
  const unknown = {
    reason: undefined,
    behindBytes: undefined,
    behindSinceMs: undefined,
    currentAtMs: undefined,
    verifiedSinceMs: undefined,
  }
  return { name, url, state: 'starting', repaired: 0, damaged: 0, ...unknown }
}

function addCommand(yargs: Argv): Argv {
  return yargs.command(
    'add <name> <url>',
    'Keep a copy of the repository there',
    (options) =>
      withExamples(
        jsonOption(
          bucketOptions(
            dataOption(options.positional('name', NAME).positional('url', { type: 'string', demandOption: true, describe: PLACE_HELP })),
          ),
        ),
        'copy add usb fs:/mnt/usb/pacsimile',
        'copy add vault s3:pacs-vault/site-a --endpoint https://s3.example:9000 --credentials-file /etc/pacsimile/vault.credentials',
      ),
    async ({ data, name, url, json, ...bucket }) => {
      const definition = definitionOf(url, bucket)
      const named = { name: label(name, 'The name of a copy'), definition }
      await orOnData(
        () => askCollector(data, 'copyAdd', named),
        () => addOnData(data, named),
      )
      if (await isOnSameDisk(data, definition.url)) warn(SAME_DISK)
      if (json) sayJson({ name, url })
      else note(`${url} is a copy from now on; \`pacsimile status\` shows how far it is.`)
    },
  )
}

/** A disk that is not mounted is an empty directory of the one below. */
const SAME_DISK =
  'the copy lies on the same filesystem as the repository, and does not outlive it. Is the disk mounted that it was meant for? (`pacsimile copy remove` takes it back)'

/** Only a hint: where it cannot be known, there is none, and the copy is made all the same. */
async function isOnSameDisk(data: string, url: string): Promise<boolean> {
  if (!url.startsWith('fs:')) return false
  const { readCollectorConfig } = await import('../config.ts')
  try {
    const { repository } = readCollectorConfig(await dataDirectory(data))
    return statSync(url.slice('fs:'.length)).dev === statSync(repository).dev
  } catch {
    return false
  }
}

async function addOnData(data: string, named: NamedDefinition): Promise<void> {
  const [{ addDefinition }, { beginCopy }, { readCollectorConfig }, { readDescription }] = await Promise.all([
    import('../copy-definition.ts'),
    import('../copy-begin.ts'),
    import('../config.ts'),
    import('../repository/repository.ts'),
  ])
  const dataDir = await dataDirectory(data)
  const directory = readCollectorConfig(dataDir).repository
  await beginCopy(dataDir, { id: readDescription(directory).id, directory }, named)
  addDefinition(dataDir, named)
}

function removeCommand(yargs: Argv): Argv {
  return yargs.command(
    'remove <name>',
    'Keep that copy no longer; what is there stays as it is',
    (options) => withExamples(dataOption(options.positional('name', NAME)), 'copy remove usb'),
    async ({ data, name }) => {
      await orOnData(
        () => askCollector(data, 'copyRemove', { name }),
        () => removeOnData(data, name),
      )
      note(`${name} is no copy any more. What is there stays as it is, and can still be read with a key.`)
    },
  )
}

async function removeOnData(data: string, name: string): Promise<void> {
  const [{ definitionsIn, removeDefinition }, { requireSpare, unknownCopy }, { readCollectorConfig }] = await Promise.all([
    import('../copy-definition.ts'),
    import('../copies.ts'),
    import('../config.ts'),
  ])
  const dataDir = await dataDirectory(data)
  const known = definitionsIn(dataDir).map((named) => named.name as string)
  if (!known.includes(name)) throw unknownCopy(name, known)
  requireSpare(readCollectorConfig(dataDir).ackCopies, known.length, name)
  removeDefinition(dataDir, name)
}
