/**
 * What is to be a copy: DATA/copies/NAME.json, one small file for each, and how such a place is opened.
 *
 * Invariant: a definition holds no secret; credentials are named by the file that holds them, or come from the environment. It
 * prevents the key to a bucket from standing in a status, a log or a list of processes.
 */
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { z } from 'zod'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { createFileDurably, makeDirectory, readIfPresent, removeFileDurably } from '../shared/files.ts'
import { type Label, label } from '../shared/path.ts'
import type { Copy } from './repository/copy.ts'
import { FsCopy } from './repository/copy-fs.ts'

const DEFINITION = z.strictObject({
  version: z.literal(1),
  /** `fs:/PATH`, `s3:BUCKET/PREFIX`. */
  url: z.string().min(1),
  /** Of a server other than Amazon's. */
  endpoint: z.url().optional(),
  region: z.string().min(1).optional(),
  credentialsFile: z.string().min(1).optional(),
  lockDays: z.number().int().min(1).max(36_500).optional(),
  added: z.iso.datetime(),
})
export type CopyDefinition = z.output<typeof DEFINITION>

export const NAMED = z.object({ name: z.string().transform((text) => label(text, 'The name of a copy')), definition: DEFINITION })
export type NamedDefinition = z.output<typeof NAMED>

type CopyPlace =
  | { readonly kind: 'fs'; readonly directory: string }
  | { readonly kind: 's3'; readonly bucket: string; readonly prefix: string }

/** @throws usage */
function placeOf(url: string): CopyPlace {
  const [, scheme, rest = ''] = /^([a-z0-9]+):(.*)$/s.exec(url) ?? []
  if (scheme === 'fs') {
    if (isAbsolute(rest) && rest !== '/') return { kind: 'fs', directory: rest.replace(/\/+$/, '') }
    throw new PacsimileError('usage', `${JSON.stringify(url)} does not name a directory by its absolute path`)
  }
  if (scheme === 's3') {
    const [, bucket, prefix = ''] = /^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*?))?\/*$/.exec(rest) ?? []
    if (bucket !== undefined && !prefix.includes('//') && !prefix.startsWith('/')) return { kind: 's3', bucket, prefix }
    throw new PacsimileError('usage', `${JSON.stringify(url)} does not name a bucket and a prefix in it`)
  }
  throw new PacsimileError('usage', `${JSON.stringify(url)} names no copy: fs:/PATH or s3:BUCKET/PREFIX`)
}

/** `signal` ends what is under way. @throws not-found where there is no copy, or it is away */
export function openCopy(definition: CopyDefinition, signal: AbortSignal): Promise<Copy> {
  const place = placeOf(definition.url)
  return place.kind === 'fs' ? FsCopy.open(place.directory) : openBucket(definition, place, signal)
}

/** The place, for a copy that is to be begun there. */
export function beginPlace(definition: CopyDefinition, signal: AbortSignal): Promise<Copy> {
  const place = placeOf(definition.url)
  return place.kind === 'fs' ? FsCopy.begin(place.directory) : openBucket(definition, place, signal)
}

/** The client is loaded only where there is a bucket: it is large. */
async function openBucket(
  definition: CopyDefinition,
  { bucket, prefix }: { bucket: string; prefix: string },
  signal: AbortSignal,
): Promise<Copy> {
  const { S3Copy } = await import('./repository/copy-s3.ts')
  const { endpoint, region, credentialsFile, lockDays } = definition
  return S3Copy.open({ bucket, prefix, endpoint, region, credentialsFile, lockDays }, signal)
}

/** How a place is best written: a bucket not too often, since each part is an object, and each request has its price. */
export function paceOf(definition: CopyDefinition): { readonly lingerMs: number; readonly probeMs: number } {
  return placeOf(definition.url).kind === 'fs' ? { lingerMs: 0, probeMs: 2000 } : { lingerMs: 2000, probeMs: 30_000 }
}

function directoryOf(dataDir: string): string {
  return join(dataDir, 'copies')
}

function fileOf(dataDir: string, name: string): string {
  return join(directoryOf(dataDir), `${label(name, 'The name of a copy')}.json`)
}

/** In the order of their names. @throws format-invalid */
export function definitionsIn(dataDir: string): NamedDefinition[] {
  return namesIn(directoryOf(dataDir)).map((name): NamedDefinition => {
    const file = fileOf(dataDir, name)
    try {
      return { name, definition: DEFINITION.parse(JSON.parse(readIfPresent(file)?.toString('utf8') ?? '')) }
    } catch (error) {
      throw new PacsimileError('format-invalid', `${file} does not define a copy: ${reasonOf(error)}`, { cause: error })
    }
  })
}

function namesIn(directory: string): Label[] {
  try {
    const names = readdirSync(directory).filter((name) => /^[a-z0-9][a-z0-9._-]*\.json$/.test(name) && !name.endsWith('.state.json'))
    return names.toSorted().map((name) => label(name.slice(0, -'.json'.length), 'The name of a copy'))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw asPacsimileError(error, `Looking into ${directory}`)
  }
}

/** @throws already-exists */
export function addDefinition(dataDir: string, { name, definition }: NamedDefinition): void {
  makeDirectory(directoryOf(dataDir))
  if (name.endsWith('.state')) throw new PacsimileError('usage', `The name of a copy must not end in ".state"`)
  createFileDurably(fileOf(dataDir, name), `${JSON.stringify(definition, null, 2)}\n`)
}

/** Forgets a copy; the place itself stays as it is. */
export function removeDefinition(dataDir: string, name: string): void {
  removeFileDurably(fileOf(dataDir, name))
  removeFileDurably(stateFile(dataDir, name))
}

/** What a collector keeps beside a definition. */
export function stateFile(dataDir: string, name: string): string {
  return join(directoryOf(dataDir), `${name}.state.json`)
}

/** Who this data directory is, to the copies that it writes: random, made when it is first asked for. */
export function instanceOf(dataDir: string): string {
  const file = join(dataDir, 'instance.json')
  const found = readIfPresent(file)
  if (found !== undefined)
    return z.object({ instance: z.string().regex(/^[0-9a-f]{32}$/) }).parse(JSON.parse(found.toString('utf8'))).instance
  const instance = randomBytes(16).toString('hex')
  createFileDurably(file, `${JSON.stringify({ instance })}\n`)
  return instance
}
