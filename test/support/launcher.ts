/** Runs the built executable while this process goes on, so that a test can answer what it asks. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'

export const LAUNCHER = join(import.meta.dirname, '../../collector/cli/pacsimile')
/** No secret of whoever runs the tests, and a zone in which local time is not UTC. */
const ENVIRONMENT = { ...process.env, PACSIMILE_PASSPHRASE: '', PACSIMILE_RECOVERY_KEY: '', TZ: 'Europe/Berlin' }

/** And what a test has set since. */
export function environment(): NodeJS.ProcessEnv {
  return { ...ENVIRONMENT, PACSIMILE_RESTORES: process.env['PACSIMILE_RESTORES'] }
}

export interface Ended {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export function launch(...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(LAUNCHER, args, { env: environment(), maxBuffer: 64 << 20 }, (_error, stdout, stderr) =>
      resolve({ status: child.exitCode ?? -1, stdout, stderr }),
    )
  })
}

/** The answer of a command that succeeds. */
export async function answer(...args: string[]): Promise<unknown> {
  const { status, stdout, stderr } = await launch(...args, '--json')
  if (status !== 0) throw new Error(`pacsimile ${args.join(' ')} exited with ${status}: ${stderr}`)
  return JSON.parse(stdout)
}
