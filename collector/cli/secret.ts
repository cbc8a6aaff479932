/**
 * Where a repository's secret comes from: a key file, the environment, or a person at a terminal.
 *
 * Invariant: a secret is never an argument and never echoed. It prevents the key of an archive from standing in the list
 * of processes, in a shell's history, or on a shared screen.
 */
import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { PacsimileError } from '../../shared/errors.ts'
import type { RepositorySecret } from '../repository/keys.ts'

/** 128 + SIGINT. */
export const INTERRUPTED = 130

/** From --key-file or the environment; undefined where neither is given. */
export function givenSecret(keyFile: string | undefined): RepositorySecret | undefined {
  if (keyFile !== undefined) return { kind: 'key-file', file: resolve(keyFile) }
  const recoveryKey = process.env['PACSIMILE_RECOVERY_KEY']
  if (recoveryKey !== undefined && recoveryKey !== '') return { kind: 'recovery', recoveryKey }
  const passphrase = process.env['PACSIMILE_PASSPHRASE']
  if (passphrase !== undefined && passphrase !== '') return { kind: 'passphrase', passphrase }
  return undefined
}

/** What is given, else the key file that `init` put beside the repository; undefined where there is neither. */
export function secretAtHand(repository: string, keyFile: string | undefined): RepositorySecret | undefined {
  const beside = keyFileBeside(repository)
  return givenSecret(keyFile) ?? (existsSync(beside) ? { kind: 'key-file', file: beside } : undefined)
}

const keyFileBeside = (repository: string): string => join(dirname(resolve(repository)), 'keys', 'repository.key')

/** For a bare repository: what is at hand, else a question. @throws key-missing */
export async function secretFor(repository: string, keyFile: string | undefined): Promise<RepositorySecret> {
  const found = secretAtHand(repository, keyFile)
  if (found !== undefined) return found
  if (process.stdin.isTTY) return { kind: 'passphrase', passphrase: await askSecret('Passphrase of the repository: ') }
  throw new PacsimileError(
    'key-missing',
    `No key for ${repository}: neither --key-file nor a passphrase or recovery key in the environment, and no ${keyFileBeside(repository)}`,
  )
}

/** Asks at the terminal without echo. Ctrl-C ends the program as it would anywhere else. */
export async function askSecret(question: string): Promise<string> {
  const mute = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: mute, terminal: true })
  lines.once('SIGINT', () => {
    process.stderr.write('\n')
    process.exit(INTERRUPTED)
  })
  process.stderr.write(question)
  try {
    return await lines.question('')
  } finally {
    lines.close()
    process.stderr.write('\n')
  }
}
