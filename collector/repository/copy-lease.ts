/**
 * Who writes a copy: `writer.json` in it names one collector.
 *
 * Invariant: it changes hands only by a takeover that somebody asked for, over the very version that was seen, and the token rises
 * with each. It prevents two collectors from writing one history by turns.
 */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { z } from 'zod'
import { PacsimileError, reasonOf } from '../../shared/errors.ts'
import { type Copy, fenced, type SmallFile } from './copy.ts'

const NAME = 'writer.json'
/** A writer that renewed it within this time may be at work. */
const RECENT_MS = 15 * 60_000
/** A writer at work renews it when it is older. */
const RENEW_MS = RECENT_MS / 2

const LEASE = z.object({
  version: z.literal(1),
  repository: z.string(),
  /** Random, of the collector's data directory. */
  instance: z.string().regex(/^[0-9a-f]{32}$/),
  token: z.number().int().min(1),
  /** Random, of its process. */
  session: z.string(),
  host: z.string(),
  renewed: z.iso.datetime(),
  /** The writer ended in order, and all that it had is here. */
  released: z.boolean(),
})
type LeaseTerms = z.output<typeof LEASE>

/** Tells this process from another one of the same instance: a clone of the data directory. */
const SESSION = randomBytes(8).toString('hex')

/** Of the collector that writes. */
export interface Writer {
  readonly repository: string
  readonly instance: string
}

export class Lease {
  readonly #copy: Copy
  readonly #writer: Writer
  #file: SmallFile
  #terms: LeaseTerms

  private constructor(copy: Copy, writer: Writer, file: SmallFile, terms: LeaseTerms) {
    this.#copy = copy
    this.#writer = writer
    this.#file = file
    this.#terms = terms
  }

  /** Where nobody writes, or it is this writer's. @throws fenced */
  static async take(copy: Copy, writer: Writer): Promise<Lease> {
    const found = await copy.find(NAME)
    if (found === undefined) return Lease.#write(copy, writer, 'nothing', 1)
    const terms = termsIn(found, copy)
    if (terms.instance !== writer.instance) throw fenced(copy.url, describe(terms))
    return Lease.#write(copy, writer, found, terms.token)
  }

  /** Whether it is this writer's. */
  static async isHeld(copy: Copy, writer: Writer): Promise<boolean> {
    const found = await copy.find(NAME)
    return found !== undefined && termsIn(found, copy).instance === writer.instance
  }

  /** That it is this writer's; nothing is written. @throws fenced */
  static async require(copy: Copy, writer: Writer): Promise<void> {
    const found = await copy.find(NAME)
    const terms = found === undefined ? undefined : termsIn(found, copy)
    if (terms?.instance !== writer.instance) throw fenced(copy.url, terms === undefined ? `it has no ${NAME}` : describe(terms))
  }

  /** From another writer. @throws fenced where that one may be at work, and is not to be `fenced` out */
  static async takeOver(copy: Copy, writer: Writer, isForced: boolean): Promise<Lease> {
    const found = await copy.find(NAME)
    if (found === undefined) return Lease.#write(copy, writer, 'nothing', 1)
    const terms = termsIn(found, copy)
    const isRecent = Date.now() - Date.parse(terms.renewed) < RECENT_MS && !terms.released
    if (isRecent && terms.instance !== writer.instance && !isForced)
      throw fenced(copy.url, `${describe(terms)}. Stop that one; or, if it is lost, take over with --take-over`)
    return Lease.#write(copy, writer, found, terms.token + (terms.instance === writer.instance ? 0 : 1))
  }

  static async #write(copy: Copy, writer: Writer, over: SmallFile | 'nothing', token: number, released = false): Promise<Lease> {
    const terms: LeaseTerms = {
      version: 1,
      ...writer,
      token,
      session: SESSION,
      host: hostname(),
      renewed: new Date().toISOString(),
      released,
    }
    await copy.write(NAME, Buffer.from(`${JSON.stringify(terms)}\n`), over)
    const file = await copy.find(NAME)
    if (file === undefined) throw new PacsimileError('io', `${copy.url} does not keep what is written there`)
    const written = termsIn(file, copy)
    if (written.session !== SESSION || written.token !== token) throw fenced(copy.url, describe(written))
    return new Lease(copy, writer, file, written)
  }

  get token(): number {
    return this.#terms.token
  }

  /** @throws fenced where it is another's by now */
  async check(): Promise<void> {
    const found = await this.#copy.find(NAME)
    if (found === undefined)
      throw new PacsimileError('io', `${this.#copy.url} has no ${NAME} any more: is its disk mounted, its bucket the right one?`)
    if (found.version === this.#file.version) return
    const terms = termsIn(found, this.#copy)
    if (terms.instance !== this.#writer.instance) throw fenced(this.#copy.url, describe(terms))
    if (terms.session !== SESSION) throw fenced(this.#copy.url, `${describe(terms)}; it has the same data directory, or a clone of it`)
    this.#file = found
    this.#terms = terms
  }

  /** The writer is at work still. @throws fenced */
  async renew(): Promise<void> {
    if (Date.now() - Date.parse(this.#terms.renewed) < RENEW_MS) return
    const { token } = this.#terms
    const renewed = await Lease.#write(this.#copy, this.#writer, this.#file, token)
    this.#file = renewed.#file
    this.#terms = renewed.#terms
  }

  /** Others may take over without a question. @throws fenced */
  async release(): Promise<void> {
    await Lease.#write(this.#copy, this.#writer, this.#file, this.#terms.token, true)
  }
}

function termsIn(file: SmallFile, copy: Copy): LeaseTerms {
  try {
    return LEASE.parse(JSON.parse(file.bytes.toString('utf8')))
  } catch (error) {
    throw new PacsimileError('format-invalid', `${NAME} of ${copy.url} does not name a writer: ${reasonOf(error)}`, { cause: error })
  }
}

function describe({ instance, host, token, renewed }: LeaseTerms): string {
  return `${instance.slice(0, 8)} on ${host}, token ${token}, at work at ${renewed}`
}
