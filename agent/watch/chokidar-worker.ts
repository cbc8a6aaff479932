/**
 * The thread in which chokidar runs: events of one directory tree, as batches of hints.
 *
 * It has its own event loop, because the kernel's queue overflows unseen when the loop that reads it is busy with captures.
 * Invariant: every raw event becomes a hint, before chokidar throttles (50 ms) or drops anything; a new directory is
 * scanned now and once more after 300 ms, because what was made in it before it was watched has no events; a name that is
 * not UTF-8 becomes a scan of its directory, because its bytes do not arrive here. It prevents the known ways in which this
 * library loses a file that it could have told of; those that are not known are found by the scheduled scan.
 */
import type { Stats } from 'node:fs'
import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { type FSWatcher, watch } from 'chokidar'
import { errnoOf, reasonOf } from '../../shared/errors.ts'
import { EVENTS_QUEUED_MAX } from '../../shared/limits.ts'
import { byteString, type RelativePath, ROOT, relativePath } from '../../shared/path.ts'
import { IgnoreRules } from './ignore.ts'
import type { WatchEvent, WatchRequest } from './watcher.ts'

/** What this watcher says; nobody tells it of renames or versions. */
type Hint = Extract<WatchEvent, { kind: 'dirty' | 'rescan' }>

export type ChokidarMessage =
  /** Everything below is watched; `problem` says what could not be. */
  | { readonly kind: 'ready'; readonly problem: string | undefined }
  | { readonly kind: 'events'; readonly events: readonly Hint[] }
  | { readonly kind: 'problem'; readonly problem: string }

/** Asks the thread to end. */
export type ChokidarOrder = 'end'

/** How long after a new directory was seen it is scanned again. */
const SECOND_SCAN_MS = 300
const NOT_UTF8 = '\ufffd'

if (parentPort === null) throw new TypeError('this module runs in a worker thread')
const port = parentPort
const { directory, ignored, ignorePatterns = [] } = workerData as WatchRequest

const ignore = new IgnoreRules({ paths: ignored, patterns: ignorePatterns })
/** What is to be sent with the next message; the same hint once. */
const hints = new Map<string, Hint>()
let isScheduled = false
let problem: string | undefined

function add(event: Hint): void {
  if (hints.size >= EVENTS_QUEUED_MAX) {
    hints.clear()
    hints.set('', { kind: 'rescan', path: ROOT, isShallow: false, cause: 'more events at once than could be held' })
  } else {
    hints.set(event.kind === 'dirty' ? `d${event.path}` : `${event.isShallow ? 's' : 'r'}${event.path}`, event)
  }
  if (isScheduled) return
  isScheduled = true
  setImmediate(send)
}

function send(): void {
  isScheduled = false
  post({ kind: 'events', events: [...hints.values()] })
  hints.clear()
}

function post(message: ChokidarMessage): void {
  port.postMessage(message)
}

/** Undefined for what lies outside; the closest ancestor with a name that is UTF-8 otherwise. */
function pathOf(absolute: string): { readonly path: RelativePath; readonly isWhole: boolean } | undefined {
  if (absolute === directory) return { path: ROOT, isWhole: true }
  if (!absolute.startsWith(`${directory}/`)) return undefined
  const names = absolute.slice(directory.length + 1).split('/')
  const odd = names.findIndex((name) => name.includes(NOT_UTF8))
  const known = odd < 0 ? names : names.slice(0, odd)
  return { path: relativePath(byteString(known.join('/'))), isWhole: odd < 0 }
}

function isIgnored(absolute: string, stats?: Stats): boolean {
  const found = pathOf(absolute)
  return found?.isWhole === true && ignore.isIgnored(found.path, stats?.isDirectory())
}

function hint(absolute: string): void {
  const found = pathOf(absolute)
  if (found === undefined) return
  if (!found.isWhole) {
    add({ kind: 'rescan', path: found.path, isShallow: true, cause: 'a name that is not UTF-8' })
    return
  }
  add({ kind: 'dirty', path: found.path, isEntry: true })
}

function newDirectory(absolute: string): void {
  const found = pathOf(absolute)
  if (found === undefined) return
  const rescan = (): void => add({ kind: 'rescan', path: found.path, isShallow: !found.isWhole, cause: 'a new directory' })
  rescan()
  setTimeout(rescan, SECOND_SCAN_MS)
}

function failed(error: unknown): void {
  const isLimit = errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EMFILE'
  const advice = isLimit ? ' (raise fs.inotify.max_user_watches and max_user_instances; until then the scans find the changes)' : ''
  const isNew = problem === undefined
  problem = `${reasonOf(error)}${advice}`
  if (!isNew) return
  post({ kind: 'problem', problem })
  add({ kind: 'rescan', path: ROOT, isShallow: false, cause: problem })
}

function start(): FSWatcher {
  return watch(directory, { followSymlinks: false, ignoreInitial: true, atomic: false, ignored: isIgnored })
    .on('raw', (_event, name, details) => {
      const watched = details !== null && typeof details === 'object' && 'watchedPath' in details ? String(details.watchedPath) : directory
      if (name === null) hint(watched)
      else hint(join(watched, name))
    })
    .on('add', hint)
    .on('change', hint)
    .on('unlink', hint)
    .on('unlinkDir', hint)
    .on('addDir', (path) => {
      hint(path)
      newDirectory(path)
    })
    .on('error', failed)
    .on('ready', () => post({ kind: 'ready', problem }))
}

port.on('message', (order: ChokidarOrder) => {
  // Of this thread alone; nothing that it knows is needed any more.
  if (order === 'end') process.exit()
})
start()
