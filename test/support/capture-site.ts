/** A directory with capture threads that look at it, and what they answer. */
import { lstatSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { Capture, type CaptureRequest } from '../../agent/capture.ts'
import type { Outcome, Side } from '../../agent/capture-job.ts'
import type { CaptureClient, StoredChunk } from '../../agent/capture-thread.ts'
import { identityOf, type VolumeRoot } from '../../agent/file-stat.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import type { Digest } from '../../shared/digest.ts'
import { silentLog } from '../../shared/log.ts'
import { byteString, relativePath } from '../../shared/path.ts'
import { plainOf } from '../../shared/stored-form.ts'
import type { FileVersion, Version } from '../../shared/version.ts'
import { scratchDirectory } from './scratch.ts'

export interface Captured {
  readonly outcome: Outcome
  /** What was shipped, plain. */
  readonly chunks: ReadonlyMap<Digest, Buffer>
  /** In the form in which it was shipped. */
  readonly stored: ReadonlyMap<Digest, StoredChunk>
}

export type ExamineOptions = Partial<Extract<CaptureRequest, { kind: 'examine' }>>

export class CaptureSite {
  readonly directory: string
  readonly #capture = new Capture(silentLog, () => {})
  readonly #root: VolumeRoot

  constructor(directory = scratchDirectory()) {
    this.directory = directory
    onTestFinished(() => this.#capture.close())
    const stats = lstatSync(this.directory, { bigint: true })
    this.#root = { directory: byteString(this.directory), device: stats.dev, inode: stats.ino }
  }

  file(name: string): string {
    return join(this.directory, name)
  }

  look(name: string, options: ExamineOptions = {}): Promise<Captured> {
    return this.request({ kind: 'examine', ...side(name), asIs: false, isDeep: false, wasStable: true, pin: undefined, ...options })
  }

  /** What `onChunk` returns is waited for before much more is captured. */
  request(request: CaptureRequest, onChunk: () => Promise<void> | undefined = () => undefined): Promise<Captured> {
    return this.#dispatch([request], onChunk)[0] ?? Promise.reject(new Error('one request has one answer'))
  }

  /** All given at once: the first ones to the same thread. */
  requestAll(requests: readonly CaptureRequest[], onChunk: () => Promise<void> | undefined): Promise<Captured[]> {
    return Promise.all(this.#dispatch(requests, onChunk))
  }

  #dispatch(requests: readonly CaptureRequest[], onChunk: () => Promise<void> | undefined): Promise<Captured>[] {
    const clients: CaptureClient[] = []
    const answers = requests.map((): Promise<Captured> => {
      const chunks = new Map<Digest, Buffer>()
      const stored = new Map<Digest, StoredChunk>()
      return new Promise((resolve) => {
        const client: CaptureClient = {
          taken: ({ digest }: { readonly digest: Digest }, chunk: StoredChunk): Promise<void> | undefined => {
            stored.set(digest, chunk)
            chunks.set(digest, Buffer.from(plainOf(chunk, chunk.length)))
            return onChunk()
          },
          ended: (outcome: Outcome): void => resolve({ outcome, chunks, stored }),
        }
        clients.push(client)
      })
    })
    this.#capture.dispatch(
      this.#root,
      DEFAULT_CHUNK_SIZES,
      requests.map((request, i) => [request, clients[i]] as [CaptureRequest, CaptureClient]),
    )
    return answers
  }
}

/** A path of which nothing is known. */
export function side(name: string): Side {
  return { path: relativePath(byteString(name)), known: undefined, storedDigests: '', shipBytesMax: Number.POSITIVE_INFINITY }
}

export function versionOf({ outcome }: Captured): Version {
  if (outcome.kind !== 'version') throw new Error(`the outcome is ${outcome.kind}`)
  return outcome.version
}

export function fileOf(captured: Captured): FileVersion {
  const version = versionOf(captured)
  if (version.kind !== 'file') throw new Error(`it is a ${version.kind}`)
  return version
}

/** The content as its chunks make it. */
export function contentOf(captured: Captured): Buffer {
  return contentFrom(fileOf(captured), captured.chunks)
}

export function contentFrom({ chunks }: FileVersion, shipped: ReadonlyMap<Digest, Buffer>): Buffer {
  return Buffer.concat(chunks.map(({ digest }) => shipped.get(digest) ?? Buffer.from('missing')))
}

export const known = (version: Version): ExamineOptions => ({ known: identityOf({ version, isLost: false }) })

export function joinedDigests({ chunks }: FileVersion): string {
  return chunks.map(({ digest }) => digest).join('')
}
