/**
 * How a place of a copy is given on a command line: the same to `copy add` and to `collector init --from`.
 *
 * Credentials are named by a file, never given. It prevents a key from standing in the list of processes.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import type { CopyDefinition } from '../copy-definition.ts'

export const PLACE_HELP = 'fs:/PATH or s3:BUCKET/PREFIX'

interface BucketOptions {
  readonly endpoint: string | undefined
  readonly region: string | undefined
  readonly credentialsFile: string | undefined
  readonly lockDays: number | undefined
}

export function bucketOptions<T>(yargs: Argv<T>): Argv<
  T & { endpoint: string | undefined } & { region: string | undefined } & { 'credentials-file': string | undefined } & {
    'lock-days': number | undefined
  }
> {
  return yargs
    .option('endpoint', { type: 'string', describe: "URL of the S3 server, where it is not Amazon's", requiresArg: true })
    .option('region', { type: 'string', describe: 'Of the bucket', requiresArg: true })
    .option('credentials-file', {
      type: 'string',
      describe: 'Names aws_access_key_id and aws_secret_access_key; without it they come from the environment of the collector',
      requiresArg: true,
    })
    .option('lock-days', {
      type: 'number',
      describe: 'Finished files cannot be deleted for so long, where the bucket has object lock',
      requiresArg: true,
    })
}

/** @throws usage */
export function definitionOf(url: string, { endpoint, region, credentialsFile, lockDays }: BucketOptions): CopyDefinition {
  const given = [endpoint, region, credentialsFile, lockDays].some((option) => option !== undefined)
  if (!url.startsWith('s3:') && given)
    throw new PacsimileError('usage', '--endpoint, --region, --credentials-file and --lock-days belong to s3:BUCKET/PREFIX')
  if (endpoint !== undefined && !/^https?:\/\//.test(endpoint))
    throw new PacsimileError('usage', `--endpoint ${endpoint} is no http(s) URL`)
  if (lockDays !== undefined && !(Number.isInteger(lockDays) && lockDays >= 1))
    throw new PacsimileError('usage', `--lock-days ${lockDays} is no number of days`)
  return {
    version: 1,
    url,
    added: new Date().toISOString(),
    endpoint,
    region,
    credentialsFile: credentialsFile === undefined ? undefined : resolve(credentialsFile),
    lockDays,
  }
}
