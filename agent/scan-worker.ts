/**
 * The edge of a scan thread: takes tasks (scan-task.ts), one after the other, and goes through the disk with synchronous calls.
 *
 * Invariant: a task ends with `done`, and its word counts only if the volume's directory was the one that is watched at its
 * beginning and at its end. It prevents an unmounted disk from being compared as an empty one.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { reasonOf } from '../shared/errors.ts'
import { pathFromKey, pathKey, ROOT } from '../shared/path.ts'
import { rootProblem } from './ancestry.ts'
import { Database } from './database.ts'
import { IndexDamaged, inodesEnd } from './group-walk.ts'
import { InodeLookup } from './inode-lookup.ts'
import { InodeScan, mountsBelow } from './inode-scan.ts'
import { standBack } from './priority.ts'
import { ScanOutlet } from './scan-outlet.ts'
import { ScanRoot } from './scan-root.ts'
import type { ScanOrder, ScanRequest, ScanTask, ScanThreadData } from './scan-task.ts'
import { listedPrefix, rangeOfPrefix } from './state-keys.ts'
import { BTRFS_MAGIC, EXT4_MAGIC, XFS_MAGIC } from './system-calls.ts'
import { TreeWalk, type WalkParts } from './tree-walk.ts'

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort
const control = new Int32Array((workerData as ScanThreadData).control)

/** Filesystems where a directory's times move with every change of its names, and inode numbers are exact in a double. */
const TELLING = new Set([XFS_MAGIC, EXT4_MAGIC, BTRFS_MAGIC])

let joined: { readonly directory: string; readonly database: Database } | undefined
let last: Promise<void> = Promise.resolve()

async function databaseAt(directory: string): Promise<Database> {
  if (joined?.directory === directory) return joined.database
  await joined?.database.close()
  joined = undefined
  const database = await Database.join(directory)
  joined = { directory, database }
  return database
}

async function perform(request: ScanRequest, task: ScanTask): Promise<void> {
  const outlet = new ScanOutlet(port, control, request.id)
  const before = rootProblem(request.root)
  if (before !== undefined) {
    outlet.done(before)
    return
  }
  let problem: string | undefined
  try {
    using root = ScanRoot.open(request.root)
    const { volume, isDeep, bulkInodesMax } = request
    const database = await databaseAt(request.stateDirectory)
    const provesListing = request.path === ROOT && !request.isShallow && !isDeep && TELLING.has(root.calls.filesystemOf(root.fd).type)
    const parts: WalkParts = {
      root,
      database,
      volume,
      outlet,
      ignored: await ignoredKeys(request),
      isDeep,
      index: provesListing ? new InodeLookup(database, volume) : undefined,
      trustsListed: bulkInodesMax > 0,
    }
    await run(parts, request, task)
  } catch (error) {
    problem = rootProblem(request.root)
    if (problem === undefined) throw error
  }
  outlet.done(problem ?? rootProblem(request.root))
}

/** Most volumes have no rules: asking costs, and so does the library that knows them. */
async function ignoredKeys({ ignored, ignorePatterns }: ScanRequest): Promise<WalkParts['ignored']> {
  if (ignorePatterns.length === 0) return new Set(ignored.map(pathKey))
  const { IgnoreRules } = await import('./watch/ignore.ts')
  const rules = new IgnoreRules({ paths: ignored, patterns: ignorePatterns })
  return { size: ignorePatterns.length, has: (key) => rules.isIgnored(pathFromKey(key), undefined) }
}

async function run(parts: WalkParts, request: ScanRequest, task: ScanTask): Promise<void> {
  switch (task.kind) {
    case 'all':
      await runAll(parts, request)
      return
    case 'names':
      await TreeWalk.names(parts, pathKey(task.directory), task.from, task.until)
      return
    case 'inodes':
      await runInodes(parts, task.from, task.until)
  }
}

async function runAll(parts: WalkParts, request: ScanRequest): Promise<void> {
  const reason = await whyWalk(parts, request)
  const key = pathKey(request.path)
  if (reason !== undefined) {
    parts.outlet.method('walk', reason)
    await TreeWalk.subtree(parts, key, request.isShallow)
    return
  }
  parts.outlet.method('bulkstat', '')
  for (const path of mountsBelow(parts)) parts.outlet.found({ kind: 'foreign', path })
  await runInodes(parts, 0, await inodesEnd(parts.database, parts.volume))
}

async function runInodes(parts: WalkParts, from: number, until: number): Promise<void> {
  try {
    await new InodeScan(parts, from, until).run()
  } catch (error) {
    if (!(error instanceof IndexDamaged)) throw error
    parts.outlet.method('walk', error.message)
    await TreeWalk.subtree({ ...parts, trustsListed: false }, '', false)
  }
}

/** Why the inodes of the filesystem cannot be listed. */
function bulkRefusal({ calls, fd }: ScanRoot): string | undefined {
  if (calls.filesystemOf(fd).type !== XFS_MAGIC) return 'the filesystem is not XFS'
  try {
    calls.bulkstat(fd, 0n, 1)
    return undefined
  } catch (error) {
    return `bulkstat is refused: ${reasonOf(error)}`
  }
}

/** Why the inodes are not listed. */
async function whyWalk({ root, database, volume }: WalkParts, request: ScanRequest): Promise<string | undefined> {
  const { path, isShallow, isDeep, bulkInodesMax } = request
  if (path !== ROOT || isShallow) return 'only a part is scanned'
  if (isDeep) return 'a deep scan walks'
  if (bulkInodesMax === 0) return 'a walk is due'
  const refusal = bulkRefusal(root)
  if (refusal !== undefined) return refusal
  if (root.calls.filesystemOf(root.fd).inodesUsed > bulkInodesMax) return 'the filesystem holds far more than the volume'
  const { entries } = await database.scanPage(rangeOfPrefix(listedPrefix(volume)), 1)
  return entries.length === 0 ? 'no walk has found a directory as it is recorded yet' : undefined
}

async function end(): Promise<void> {
  await last
  await joined?.database.close()
  port.close()
}

standBack()
port.on('message', (order: ScanOrder) => {
  if (order === 'end') {
    void end()
    return
  }
  // A task that fails ends the thread: whoever waits for the scan is told by that.
  last = last.then(() => perform(order.request, order.task))
})
