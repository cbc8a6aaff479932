/** A host that may read what an agent has brought, enrolled at a collector that runs. */
import { join } from 'node:path'
import type { Installation } from './installation.ts'
import { scratchDirectory } from './scratch.ts'

/** `port`: that of the collector, or of what stands before it. @returns the directory of its certificate */
export function enrolRestorer(installation: Installation, name: string, agent: string, port = installation.port): string {
  const { token } = installation.json('restorer', 'token', name, '--allow', agent, '--data', installation.data) as { token: string }
  const identity = join(scratchDirectory(), 'identity')
  installation.run('restorer', 'enroll', name, '--collector', `https://127.0.0.1:${port}`, '--token', token, '--identity', identity)
  return identity
}
