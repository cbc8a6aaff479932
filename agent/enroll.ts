/**
 * From a token to an enrolled agent: key pair, certificate, configuration.
 *
 * Order: the token is exchanged (shared/token-exchange.ts); STATE/identity is written; `agent.toml` comes last. Invariant:
 * `agent.toml` is there only with a complete identity, is never overwritten, and belongs with it to the owner of the state
 * directory. It prevents an agent that cannot read its own key, one that starts with a key that nobody certified, and a second
 * enrolment that cuts off the first.
 */
import { statSync } from 'node:fs'
import { hostname } from 'node:os'
import { parseCollectorAddress } from '../shared/collector-address.ts'
import { ENROLLMENT_REPLY, parseToken } from '../shared/enrollment.ts'
import { PacsimileError } from '../shared/errors.ts'
import { LABEL_MAX } from '../shared/limits.ts'
import { label } from '../shared/path.ts'
import { exchangeToken } from '../shared/token-exchange.ts'
import { ENROLL_PATH } from '../shared/wire.ts'
import { checkAgentConfig, createAgentConfig, isConfigured } from './config.ts'
import { writeIdentity } from './identity.ts'

export interface EnrollRequest {
  /** `wss://HOST:PORT` or `https://HOST:PORT` */
  readonly collectorUrl: string
  readonly token: string
  /** By default the host's name. */
  readonly name?: string
  readonly stateDir: string
  readonly volumes: readonly { readonly name: string; readonly path: string }[]
}

export interface Enrolled {
  readonly agent: string
  /** As written to `agent.toml`. */
  readonly collector: string
  readonly repository: string
  /** The highest epoch that the collector knows of this name. */
  readonly lastEpoch: number
}

/** @throws already-exists, token-invalid, not-trusted, collector-unreachable, usage, config-invalid, io, space */
export async function enroll(request: EnrollRequest): Promise<Enrolled> {
  const { stateDir, volumes } = request
  if (isConfigured(stateDir)) throw new PacsimileError('already-exists', `The agent in ${stateDir} is enrolled already`)
  const name = label(request.name ?? defaultName(), 'The agent name')
  const { token } = request
  parseToken(token)
  const address = parseCollectorAddress(request.collectorUrl)
  const config = { name, collector: address.url, volume: volumes.map((volume) => ({ ...volume })) }
  checkAgentConfig(config)
  const { key, reply } = await exchangeToken({ address, path: ENROLL_PATH, token, role: 'agent', name, reply: ENROLLMENT_REPLY })
  asOwnerOf(stateDir, (directory) => {
    writeIdentity(directory, { key, certificate: reply.certificate, authority: reply.ca })
    createAgentConfig(directory, config)
  })
  return { agent: name, collector: address.url, repository: reply.repository, lastEpoch: reply.lastEpoch }
}

/**
 * What root writes into the directory of the user as whom the agent runs must be that user's. It is written as that user,
 * not given away afterwards: who owns the directory could put something else of root's in the place of the file meanwhile.
 * From within the directory, because that user may not be allowed to come there without the capabilities of the agent.
 */
function asOwnerOf(stateDir: string, write: (directory: string) => void): void {
  const owner = statSync(stateDir, { throwIfNoEntry: false })
  if (owner === undefined || owner.uid === 0 || process.geteuid?.() !== 0) {
    write(stateDir)
    return
  }
  const before = process.cwd()
  process.chdir(stateDir)
  process.setegid?.(owner.gid)
  process.seteuid?.(owner.uid)
  try {
    write('.')
  } finally {
    process.seteuid?.(0)
    process.setegid?.(0)
    process.chdir(before)
  }
}

function defaultName(): string {
  const name = hostname()
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '')
  return name.slice(0, LABEL_MAX) || 'agent'
}
