/**
 * Who signs the report of a restore: the collector, by the key that it shows to agents.
 *
 * From DATA/keys where the command may read that, else from the identity that is sealed in the repository, which opens with the key that the
 * history was read with. Invariant: no key leaves the process, and no key that is at hand is left unused. It prevents a restore from a copy, after the collector is gone, from being the one
 * whose report nobody can check.
 */
import { join } from 'node:path'
import { PacsimileError } from '../shared/errors.ts'
import { readIfPresent } from '../shared/files.ts'
import type { ReportSigner, Unsigned } from './restore-report.ts'
import { sealedKeys } from './sealed-identity.ts'

export interface SignerPlaces {
  /** The collector's data directory, where there is one. */
  readonly dataDir: string | undefined
  /** A repository that was opened. */
  readonly repository: { readonly id: string; readonly directory: string; readonly dataKey: Buffer } | undefined
}

export function reportSigner({ dataDir, repository }: SignerPlaces): ReportSigner | Unsigned {
  try {
    const keys =
      repository === undefined
        ? new Map(['server.key', 'server.crt', 'ca.crt'].map((name) => [name, textOf(dataDir, name)]))
        : new Map(Object.entries(sealedKeys(repository) ?? {}))
    const [key, certificate, authority] = [keys.get('server.key'), keys.get('server.crt'), keys.get('ca.crt')]
    if (key !== undefined && certificate !== undefined && authority !== undefined) return { key, certificate, authority }
    return {
      unsigned:
        repository === undefined ? `${dataDir ?? ''} holds no key of a collector` : 'the repository holds no identity of a collector',
    }
  } catch (error) {
    if (!(error instanceof PacsimileError)) throw error
    return { unsigned: error.message }
  }
}

function textOf(dataDir: string | undefined, name: string): string | undefined {
  return dataDir === undefined ? undefined : readIfPresent(join(dataDir, 'keys', name))?.toString('utf8')
}
