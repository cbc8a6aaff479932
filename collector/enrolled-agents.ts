/**
 * The agents that may connect: DATA/agents/NAME.json, the fingerprint of the one certificate that counts for each name.
 *
 * The files are read anew for every session, so what `pacsimile` writes beside a running collector holds at once. Invariant: a
 * name has one certificate at a time, and a revoked one stays revoked until a token for that very name enrols it again. It
 * prevents the certificate of a decommissioned or re-installed host from writing into the journal of its successor.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { createFileDurably, makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'
import { type Label, label } from '../shared/path.ts'

const FILE = z.strictObject({
  version: z.literal(1),
  /** SHA-256 of the certificate's DER, in hex. */
  certificate: z.string().regex(/^[0-9a-f]{64}$/),
  enrolled: z.iso.datetime(),
  revoked: z.iso.datetime().optional(),
})

export interface EnrolledAgent {
  readonly name: string
  readonly certificate: string
  readonly enrolled: string
  readonly revoked?: string | undefined
}

export class EnrolledAgents {
  readonly #directory: string

  constructor(dataDir: string) {
    this.#directory = join(dataDir, 'agents')
    makeDirectory(this.#directory)
  }

  #fileOf(name: string): string {
    return join(this.#directory, `${label(name, 'The agent name')}.json`)
  }

  /** @throws format-invalid for a damaged file: such an agent is refused, never taken for a new one */
  find(name: string): EnrolledAgent | undefined {
    const file = this.#fileOf(name)
    const bytes = readIfPresent(file)
    if (bytes === undefined) return undefined
    try {
      return { name, ...FILE.parse(JSON.parse(bytes.toString('utf8'))) }
    } catch (error) {
      throw new PacsimileError('format-invalid', `${file} is damaged: ${reasonOf(error)}. Enrol ${name} again with a token bound to it.`, {
        cause: error,
      })
    }
  }

  /** Names of those that may connect, whether they ever did or not. */
  names(): Label[] {
    const files = readdirSync(this.#directory).filter((name) => /^[a-z0-9].*\.json$/.test(name))
    const names = files.toSorted().map((file) => label(file.slice(0, -'.json'.length), 'The agent name'))
    return names.filter((name) => this.find(name)?.revoked === undefined)
  }

  /** @throws already-exists when the name is taken, unless it may be replaced */
  put(name: string, certificate: string, mayReplace: boolean): void {
    const agent: z.input<typeof FILE> = { version: 1, certificate, enrolled: new Date().toISOString() }
    const write = mayReplace ? writeFileDurably : createFileDurably
    write(this.#fileOf(name), `${JSON.stringify(agent)}\n`)
  }

  /** @throws not-found */
  revoke(name: string): void {
    const agent = this.find(name)
    if (agent === undefined) throw new PacsimileError('not-found', `No agent ${name} is enrolled`)
    if (agent.revoked !== undefined) return
    const { certificate, enrolled } = agent
    const revoked: z.input<typeof FILE> = { version: 1, certificate, enrolled, revoked: new Date().toISOString() }
    writeFileDurably(this.#fileOf(name), `${JSON.stringify(revoked)}\n`)
  }
}
