/**
 * The edge of a scan thread: walks a directory tree with synchronous calls and reports what is there (scan-entry.ts).
 *
 * Invariant: at most SCAN_BATCHES_IN_FLIGHT batches are under way; the walk waits for the main thread beyond that. It
 * prevents a scan of ten million files from filling the memory of a busy agent.
 */
import { readdirSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { type ByteString, ByteWriter } from '../shared/bytes.ts'
import { reasonOf } from '../shared/errors.ts'
import { PATH_BYTES_MAX, SCAN_BATCHES_IN_FLIGHT } from '../shared/limits.ts'
import { childOf, pathBuffer, type RelativePath, ROOT } from '../shared/path.ts'
import { rootProblem } from './ancestry.ts'
import { absolutePath, fileStat, statAt } from './file-stat.ts'
import { standBack } from './priority.ts'
import { encodeScanEntry, type ScanMessage, type ScanRequest, type ScanThreadData } from './scan-entry.ts'
import { IgnoreRules } from './watch/ignore.ts'

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort
const data = workerData as ScanThreadData
const batchesInFlight = new Int32Array(data.batchesInFlight)
const cancelled = new Int32Array(data.cancelled)

const BATCH_BYTES = 64 * 1024

class Walk {
  readonly #request: ScanRequest
  readonly #ignore: IgnoreRules
  readonly #entries = new ByteWriter(2 * BATCH_BYTES)

  constructor(request: ScanRequest) {
    this.#request = request
    this.#ignore = new IgnoreRules({ paths: request.ignored, patterns: request.ignorePatterns })
  }

  run(): void {
    const { root, path } = this.#request
    const before = rootProblem(root)
    if (before === undefined) {
      this.#visit(path, 0)
      this.#flush()
    }
    this.#post({ kind: 'end', id: this.#request.id, rootProblem: before ?? rootProblem(root) })
  }

  #visit(path: RelativePath, depth: number): void {
    if (this.#isCancelled || this.#ignore.isIgnored(path, undefined)) return
    const { root, isShallow } = this.#request
    const absolute = absolutePath(root.directory, path)
    try {
      const stats = statAt(absolute)
      if (stats === undefined || this.#ignore.isIgnored(path, stats.isDirectory())) return
      if (stats.dev !== root.device && path !== ROOT) {
        this.#add(() => encodeScanEntry({ kind: 'foreign', path }, this.#entries))
        return
      }
      this.#add(() => encodeScanEntry({ kind: 'present', path, stat: fileStat(stats) }, this.#entries))
      if (!stats.isDirectory() || (isShallow && depth > 0)) return
      for (const name of namesIn(absolute)) {
        if (path.length + 1 + name.length > PATH_BYTES_MAX) throw new RangeError(`a path below it is longer than ${PATH_BYTES_MAX} bytes`)
        this.#visit(childOf(path, name), depth + 1)
      }
    } catch (error) {
      this.#add(() => encodeScanEntry({ kind: 'closed', path, reason: reasonOf(error) }, this.#entries))
    }
  }

  #add(encode: () => void): void {
    encode()
    if (this.#entries.length >= BATCH_BYTES) this.#flush()
  }

  #flush(): void {
    if (this.#entries.length === 0) return
    for (let count = Atomics.load(batchesInFlight, 0); count >= SCAN_BATCHES_IN_FLIGHT; count = Atomics.load(batchesInFlight, 0)) {
      if (this.#isCancelled) break
      Atomics.wait(batchesInFlight, 0, count, 100)
    }
    Atomics.add(batchesInFlight, 0, 1)
    this.#post({ kind: 'entries', id: this.#request.id, bytes: new Uint8Array(this.#entries.view()) })
    this.#entries.reset()
  }

  #post(message: ScanMessage): void {
    port.postMessage(message, message.kind === 'entries' && message.bytes.buffer instanceof ArrayBuffer ? [message.bytes.buffer] : [])
  }

  get #isCancelled(): boolean {
    return Atomics.load(cancelled, 0) === this.#request.id
  }
}

/** Sorted as bytes. */
function namesIn(directory: ByteString): ByteString[] {
  return readdirSync(pathBuffer(directory), { encoding: 'buffer' })
    .map((name) => name.toString('latin1'))
    .sort()
}

standBack()
port.on('message', (request: ScanRequest) => new Walk(request).run())
