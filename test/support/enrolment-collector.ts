/**
 * A collector reduced to its identity: a real TLS port on loopback that enrols and says whom it takes its peers for.
 */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TLSSocket } from 'node:tls'
import { onTestFinished } from 'vitest'
import { Enrollment } from '../../collector/enrollment.ts'
import { createToken, type Identity, openIdentity } from '../../collector/identity.ts'
import { initCollector } from '../../collector/init.ts'
import { silentLog } from '../../shared/log.ts'
import { ENROLL_PATH } from '../../shared/wire.ts'

export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'pacsimile-test-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export interface EnrolmentCollector {
  readonly dataDir: string
  readonly identity: Identity
  readonly url: string
  readonly port: number
  /** HTTP requests that were seen. */
  readonly requests: () => number
  readonly token: (agent?: string) => string
}

export async function enrolmentCollector(): Promise<EnrolmentCollector> {
  const dataDir = join(temporaryDirectory(), 'data')
  await initCollector({ dataDir })
  const identity = openIdentity(dataDir)
  const enrollment = new Enrollment(identity, (agent) => (agent === 'second-life' ? 7 : 0), silentLog)
  let requests = 0
  const server = createServer(identity.serverTlsOptions(), (request, response) => {
    requests++
    if (request.url === ENROLL_PATH) void enrollment.answer(request, response)
    else response.end(JSON.stringify(request.socket instanceof TLSSocket ? identity.peerOf(request.socket) : undefined))
  })
  identity.guard(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const token = (agent?: string): string => createToken(dataDir, { ttlMs: 60_000, ...(agent === undefined ? {} : { agent }) })
  return { dataDir, identity, url: `wss://127.0.0.1:${port}`, port, requests: () => requests, token }
}
