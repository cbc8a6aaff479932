/**
 * The frame of the demo: a directory to work in, an end that clears up, and Ctrl-C at any moment.
 *
 * Invariant: however it ends, no process of it runs afterwards, and its directory is gone unless it was asked to stay. It
 * prevents the first thing that a newcomer runs from leaving something behind.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { PacsimileError } from '../../shared/errors.ts'
import { makeDirectories } from '../../shared/files.ts'
import { DemoSite } from './demo-site.ts'
import { DemoStory } from './demo-story.ts'
import { sayJson } from './json.ts'
import { note } from './output.ts'
import { INTERRUPTED } from './secret.ts'

export interface DemoOptions {
  readonly stay: boolean
  readonly json: boolean
  readonly directory: string | undefined
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
/** Children that were just killed may still be writing. */
const REMOVE_RETRIES = 10

/** @returns the exit status @throws what failed, when the demo fails */
export async function runDemo(options: DemoOptions): Promise<number> {
  const directory = emptyDirectory(options.directory)
  const interrupted = new AbortController()
  const interrupt = (): void => interrupted.abort(new PacsimileError('incomplete', 'The demo was interrupted'))
  const site = new DemoSite(directory, interrupted.signal)
  const sweep = (): void => {
    site.killAll()
    if (!options.stay) rmSync(directory, { recursive: true, force: true, maxRetries: REMOVE_RETRIES, retryDelay: 50 })
  }
  // A closed pipe ends the process without coming back here.
  process.once('exit', sweep)
  for (const name of SIGNALS) process.on(name, interrupt)
  const story = new DemoStory(site, { isTold: !options.json, stays: options.stay })
  try {
    const figures = await story.run(interrupted.signal)
    if (options.json) sayJson({ ok: true, ...(options.stay ? { directory } : {}), ...figures })
    // Ctrl-C is how --stay is meant to end.
    if (options.stay) await story.stay(figures.restoredAt, interrupted.signal)
    return 0
  } catch (error) {
    if (!interrupted.signal.aborted) throw error
    note('The demo was interrupted.')
    return INTERRUPTED
  } finally {
    await site.end()
    for (const name of SIGNALS) process.off(name, interrupt)
    process.off('exit', sweep)
    sweep()
    if (options.stay) note(`Everything is left in ${directory}; delete it when you are done.`)
  }
}

/** @throws target-not-empty */
function emptyDirectory(wanted: string | undefined): string {
  if (wanted === undefined) return mkdtempSync(join(tmpdir(), 'pacsimile-demo-'))
  const directory = resolve(wanted)
  makeDirectories(directory)
  if (readdirSync(directory).length > 0) throw new PacsimileError('target-not-empty', `${directory} is not empty`)
  return directory
}
