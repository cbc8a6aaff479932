/**
 * The restorers, who may read history from other hosts: DATA/restorers/NAME.json, for each the one certificate that counts, what it
 * may read, and how it may show itself without a certificate.
 *
 * The files are read anew for every request, so what `pacsimile restorer` writes beside a running collector holds at once. Invariant:
 * a name has one certificate at a time, that is good until it expires or is revoked, and a new one begins without a password. It
 * prevents what was once given to a host that is gone from still opening the archive.
 */
import { closeSync, openSync, readdirSync, statSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'
import { type Label, label } from '../shared/path.ts'
import { Allowance } from './allowance.ts'
import { restorerState, type TermState } from './certificate-term.ts'
import { PASSWORD_HASH } from './password.ts'

const FILE = z.strictObject({
  version: z.literal(1),
  /** SHA-256 of the certificate's DER, in hex. */
  certificate: z.string().regex(/^[0-9a-f]{64}$/),
  allowed: z.array(z.string()).min(1),
  enrolled: z.iso.datetime(),
  /** When the certificate, and with it the password, ends. */
  expires: z.iso.datetime(),
  revoked: z.iso.datetime().optional(),
  /** Where WebDAV with a password is switched on. */
  password: PASSWORD_HASH.optional(),
})
type File = z.output<typeof FILE>

export interface Restorer extends Omit<File, 'version' | 'allowed'> {
  readonly name: Label
  readonly allowance: Allowance
}

/** Until when one is good; of a damaged file, which opens nothing, only that. */
export type RestorerEnd =
  | { readonly name: string; readonly state: TermState; readonly expiresMs: number }
  | { readonly name: string; readonly state: 'damaged' }

/** A use is noted so often, in ms. */
const USE_MS = 60_000

export class Restorers {
  readonly #directory: string
  readonly #noted = new Map<string, number>()

  constructor(dataDir: string) {
    this.#directory = join(dataDir, 'restorers')
    makeDirectory(this.#directory)
  }

  #fileOf(name: string): string {
    return join(this.#directory, `${label(name, 'The name of the restorer')}.json`)
  }

  /** @throws format-invalid for a damaged file: such a restorer is refused */
  find(name: string): Restorer | undefined {
    const file = this.#fileOf(name)
    const bytes = readIfPresent(file)
    if (bytes === undefined) return undefined
    try {
      const { version: _, allowed, ...entry } = FILE.parse(JSON.parse(bytes.toString('utf8')))
      return { name: label(name, 'The name of the restorer'), ...entry, allowance: new Allowance(allowed) }
    } catch (error) {
      throw new PacsimileError('format-invalid', `${file} is damaged: ${reasonOf(error)}. Make a new token for ${name}.`, { cause: error })
    }
  }

  /** All that there ever were. */
  list(): Restorer[] {
    return this.#names().flatMap((name) => this.find(name) ?? [])
  }

  /** Of all that were not revoked. */
  ends(nowMs: number): RestorerEnd[] {
    return this.#names().flatMap((name): RestorerEnd[] => {
      try {
        const restorer = this.find(name)
        if (restorer === undefined || restorer.revoked !== undefined) return []
        return [{ name, state: restorerState(restorer, nowMs), expiresMs: Date.parse(restorer.expires) }]
      } catch (error) {
        if (!(error instanceof PacsimileError)) throw error
        return [{ name, state: 'damaged' }]
      }
    })
  }

  #names(): string[] {
    const files = readdirSync(this.#directory).filter((name) => /^[a-z0-9].*\.json$/.test(name))
    return files.toSorted().map((file) => file.slice(0, -'.json'.length))
  }

  /** Whether anybody may show himself by a password. A damaged file opens nothing. */
  hasPasswords(): boolean {
    try {
      return this.list().some(({ password, revoked }) => password !== undefined && revoked === undefined)
    } catch {
      return false
    }
  }

  /** In the place of the one before of that name. */
  put(name: string, entry: { readonly certificate: string; readonly allowance: Allowance; readonly expires: Date }): void {
    const { certificate, allowance, expires } = entry
    this.#write(name, { certificate, allowed: [...allowance.words], enrolled: new Date().toISOString(), expires: expires.toISOString() })
  }

  /** @throws not-found */
  revoke(name: string): void {
    const restorer = this.#known(name)
    if (restorer.revoked === undefined) this.#change(restorer, { revoked: new Date().toISOString(), password: undefined })
  }

  /** Undefined: there is none any more. @throws not-found, and not-trusted where the restorer was revoked */
  setPassword(name: string, password: z.output<typeof PASSWORD_HASH> | undefined): void {
    const restorer = this.#known(name)
    if (restorer.revoked !== undefined) throw new PacsimileError('not-trusted', `The restorer ${name} was revoked at ${restorer.revoked}`)
    this.#change(restorer, { password })
  }

  #known(name: string): Restorer {
    const restorer = this.find(name)
    if (restorer === undefined) throw new PacsimileError('not-found', `There is no restorer ${name}; \`pacsimile restorer list\` names all`)
    return restorer
  }

  #change({ name, allowance, ...entry }: Restorer, change: Partial<File>): void {
    this.#write(name, { ...entry, allowed: [...allowance.words], ...change })
  }

  #write(name: string, file: Omit<File, 'version'>): void {
    writeFileDurably(this.#fileOf(name), `${JSON.stringify({ version: 1, ...file } satisfies File)}\n`)
  }

  /** Notes that something was read now, for whoever wonders which restorers are still needed. Never throws. */
  noteUse(name: Label, nowMs: number): void {
    if (nowMs - (this.#noted.get(name) ?? Number.NEGATIVE_INFINITY) < USE_MS) return
    this.#noted.set(name, nowMs)
    try {
      const file = join(this.#directory, `${name}.used`)
      closeSync(openSync(file, 'a', 0o600))
      utimesSync(file, nowMs / 1000, nowMs / 1000)
    } catch {
      // It is a convenience: what was read is in the access log, without which nothing is answered.
    }
  }

  /** Within a minute; undefined for never. */
  lastUseMs(name: Label): number | undefined {
    return statSync(join(this.#directory, `${name}.used`), { throwIfNoEntry: false })?.mtimeMs
  }
}
