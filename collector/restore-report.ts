/**
 * The report of a restore, for the files of those who must prove later what was brought back: every path, with its digest and what became of it, signed
 * (docs/format.md, "Restore reports").
 *
 * Invariant: the signature is over every byte before it, and says whose it is; a report without one says why. It prevents a list that somebody has edited from passing for
 * what a restore has found.
 */
import { createHash, sign, verify, type X509Certificate } from 'node:crypto'
import { closeSync, constants, fsyncSync, openSync, readFileSync, renameSync } from 'node:fs'
import { dirname } from 'node:path'
import { z } from 'zod'
import { type Credentials, fingerprintOf, parseCertificate, roleOf } from '../shared/certificate.ts'
import { digestHex } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError, reasonOf } from '../shared/errors.ts'
import { syncDirectory, writeFully } from '../shared/files.ts'
import type { RelativePath } from '../shared/path.ts'
import type { ListedEntry } from './history-source.ts'
import type { RestoreReport } from './restore.ts'

/** Who signs: a certificate with its key, and the authority that issued it, as PEM. */
export interface ReportSigner extends Credentials {
  readonly authority: string
}

/** Why there is none. */
export type Unsigned = { readonly unsigned: string }

const PIECE_BYTES = 1 << 20
const ALGORITHM = 'ECDSA-P256-SHA256'
const SIGNATURE = z.object({
  kind: z.literal('signature'),
  algorithm: z.literal(ALGORITHM).nullable(),
  value: z.string().nullable(),
  certificate: z.string().nullable(),
  authority: z.string().nullable(),
  reason: z.string().nullable(),
})

/** Creates or replaces `file`; `summary` is the answer of the restore in JSON. @throws io, space */
export function writeReport(
  file: string,
  report: RestoreReport,
  summary: object,
  times: { startedMs: number; endedMs: number },
  signer: ReportSigner | Unsigned,
): void {
  const temporary = `${file}.part`
  try {
    const fd = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600)
    try {
      const hash = createHash('sha256')
      let text = ''
      const put = (line: object): void => {
        text += `${JSON.stringify(line)}\n`
        if (text.length >= PIECE_BYTES) flush()
      }
      const flush = (): void => {
        const bytes = Buffer.from(text, 'utf8')
        hash.update(bytes)
        writeFully(fd, bytes)
        text = ''
      }
      const time = (ms: number): string => new Date(ms).toISOString()
      put({ kind: 'restore', format: 1, started: time(times.startedMs), ended: time(times.endedMs), ...summary })
      for (const line of pathLines(report)) put(line)
      flush()
      writeFully(fd, Buffer.from(`${JSON.stringify(signatureLine(hash.digest(), signer))}\n`, 'utf8'))
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, file)
    syncDirectory(dirname(file))
  } catch (error) {
    throw asPacsimileError(error, `Writing the report ${file}`)
  }
}

function* pathLines({ entries, keptPaths, missing, inPlace }: RestoreReport): Generator<object> {
  const reasons = new Map(missing.map(({ path, cause, reason }) => [path, { cause, reason }]))
  const seen = new Set<RelativePath>()
  if (entries === undefined) throw new PacsimileError('internal', 'The restore was not asked to name every path')
  for (const entry of entries) {
    seen.add(entry.path)
    const why = reasons.get(entry.path)
    const outcome = why !== undefined ? 'missing' : keptPaths.has(entry.path) ? 'kept' : 'restored'
    yield { kind: 'path', ...nameOf(entry.path), outcome, ...why, ...contentOf(entry) }
  }
  for (const [path, why] of reasons) if (!seen.has(path)) yield { kind: 'path', ...nameOf(path), outcome: 'missing', ...why }
  for (const path of inPlace?.removed ?? []) yield { kind: 'path', ...nameOf(path), outcome: 'removed' }
}

function contentOf({ version, position }: ListedEntry): object {
  const about = { type: version.kind, mtimeNs: version.mtimeNs.toString(), epoch: position.epoch, seq: position.seq }
  return version.kind === 'file'
    ? { ...about, size: version.size, digest: digestHex(version.digest), consistency: version.consistency }
    : about
}

/** Bytes that are no text are given in base64. */
function nameOf(path: RelativePath): object {
  const bytes = Buffer.from(path, 'latin1')
  const text = bytes.toString('utf8')
  return Buffer.from(text, 'utf8').equals(bytes) ? { path: text } : { path: null, pathBytes: bytes.toString('base64') }
}

function signatureLine(hash: Buffer, signer: ReportSigner | Unsigned): z.output<typeof SIGNATURE> {
  const none = { kind: 'signature', algorithm: null, value: null, certificate: null, authority: null } as const
  if ('unsigned' in signer) return { ...none, reason: signer.unsigned }
  const value = sign('sha256', hash, { key: signer.key, dsaEncoding: 'ieee-p1363' }).toString('base64')
  return { kind: 'signature', algorithm: ALGORITHM, value, certificate: signer.certificate, authority: signer.authority, reason: null }
}

export interface VerifiedReport {
  /** Lines that are covered, without the first. */
  readonly paths: number
  /** What the certificate says of the signer. */
  readonly signer: string
  /** SHA-256 of the authority's certificate, hex: whether it is the right one is for the caller to say. */
  readonly authority: string
  /** The first line. */
  readonly summary: Readonly<Record<string, unknown>>
}

/** @throws damage where it is not what was signed, not-trusted where it is not signed, format-invalid, io */
export function verifyReport(file: string): VerifiedReport {
  const bytes = readReport(file)
  const end = bytes.lastIndexOf(0x0a, bytes.length - 2) + 1
  const { signature, summary, paths } = parsed(bytes, end, file)
  const { value, certificate: certificateText, authority: authorityText } = signature
  if (value === null || certificateText === null || authorityText === null)
    throw new PacsimileError('not-trusted', `${file} is not signed: ${signature.reason ?? 'it does not say why'}`)
  const [certificate, authority] = [parseCertificate(certificateText), parseCertificate(authorityText)]
  const hash = createHash('sha256').update(bytes.subarray(0, end)).digest()
  if (!verify('sha256', hash, { key: certificate.publicKey, dsaEncoding: 'ieee-p1363' }, Buffer.from(value, 'base64')))
    throw new PacsimileError('damage', `${file} is not what was signed`)
  if (!isIssuedBy(certificate, authority))
    throw new PacsimileError('not-trusted', `The authority in ${file} did not issue the certificate of who signed it`)
  const role = roleOf(certificate)
  const signer =
    role === undefined ? 'nobody of an installation' : role.kind === 'collector' ? `collector ${role.repository}` : `agent ${role.name}`
  return { paths, signer, authority: fingerprintOf(authority), summary }
}

function isIssuedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return authority.ca && certificate.checkIssued(authority) && certificate.verify(authority.publicKey)
}

function readReport(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw asPacsimileError(error, `Reading ${file}`)
  }
}

function parsed(
  bytes: Buffer,
  end: number,
  file: string,
): { signature: z.output<typeof SIGNATURE>; summary: Record<string, unknown>; paths: number } {
  try {
    const first = bytes.subarray(0, bytes.indexOf(0x0a)).toString('utf8')
    const summary = z.looseObject({ kind: z.literal('restore'), format: z.literal(1) }).parse(JSON.parse(first))
    const signature = SIGNATURE.parse(JSON.parse(bytes.subarray(end).toString('utf8')))
    let lines = 0
    for (let at = bytes.indexOf(0x0a); at >= 0 && at < end; at = bytes.indexOf(0x0a, at + 1)) lines += 1
    return { signature, summary, paths: lines - 1 }
  } catch (error) {
    throw new PacsimileError('format-invalid', `${file} is no report of a restore: ${reasonOf(error)}`, { cause: error })
  }
}
