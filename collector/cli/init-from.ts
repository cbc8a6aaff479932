/**
 * `pacsimile collector init --from`: a new collector out of a copy, and what its person has to do next.
 *
 * Invariant: what the copy does not bring (damaged files, the identity that agents know) is said, and what to do about it. It prevents
 * a rescue that looks whole.
 */
import { resolve } from 'node:path'
import { ERRORS } from '../../shared/errors.ts'
import { label } from '../../shared/path.ts'
import type { CopyDefinition } from '../copy-definition.ts'
import type { InitFromResult } from '../init-from.ts'
import { showBytes, showCount } from './amounts.ts'
import { sayJson } from './json.ts'
import { paint, say } from './output.ts'
import { Progress } from './progress.ts'
import { secretFor } from './secret.ts'

export interface InitFromOptions {
  readonly data: string
  readonly listen: string
  readonly keyFile: string | undefined
  readonly takeOver: boolean
  readonly copyName: string
  readonly json: boolean
}

export async function initFromCopy(definition: CopyDefinition, options: InitFromOptions): Promise<void> {
  const { data, listen, keyFile, takeOver, copyName, json } = options
  const { initFrom } = await import('../init-from.ts')
  const dataDir = resolve(data)
  using progress = new Progress('Fetching')
  const made = await initFrom({
    dataDir,
    listen,
    from: { name: label(copyName, 'The name of the copy'), definition },
    takesOver: takeOver,
    secret: (directory) => secretFor(directory, keyFile),
    onProgress: ({ bytes, totalBytes }) => progress.update(bytes, totalBytes),
  })
  progress[Symbol.dispose]()
  if (json) sayJson(initFromFields(made, { dataDir, listen, from: definition.url }))
  else sayMade(made, dataDir, listen, definition.url)
  if (made.damage.length > 0) process.exitCode = ERRORS.damage.exit
}

export function initFromFields(made: InitFromResult, place: { dataDir: string; listen: string; from: string }): object {
  const { repositoryId: repository, caFingerprint, hasIdentity, files, bytes, damage } = made
  return { repository, files, bytes, damage, hasIdentity, keyFile: made.keyFile ?? null, caFingerprint, ...place }
}

function sayMade(made: InitFromResult, dataDir: string, listen: string, url: string): void {
  say(`Made a collector in ${dataDir} from ${url}: ${showBytes(made.bytes)} in ${showCount(made.files, 'file')}.`)
  for (const { file, offset, reason } of made.damage) say(paint('red', `Damaged in the copy: ${file}, byte ${offset}: ${reason}`))
  say('Whoever wrote that copy is shut out of it. It is a copy of this collector now.')
  say()
  if (made.hasIdentity) {
    say('Agents know this collector: it has the certificates of the old one. Where its address is another one, correct `collector` in')
    say('agent.toml and start the agent again; else they go on by themselves.')
  } else {
    say(paint('yellow', 'The copy holds no identity, so that agents do not know this collector. On each protected host, with a token of'))
    say(paint('yellow', '`pacsimile token create --agent NAME`: `pacsimile agent enroll`. Their history goes on in a new epoch.'))
  }
  if (made.keyFile === undefined) say('Each start needs the passphrase of the repository.')
  else say(`It starts with the key in ${made.keyFile}.`)
  say(`Certificate authority (SHA-256): ${made.caFingerprint}`)
  say()
  say('Next:')
  say(`    pacsimile collector run --data ${dataDir}    # listens on ${listen}; makes the catalog and the replica anew`)
}
