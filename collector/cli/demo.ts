/**
 * The frame of the demo: a directory to work in, an end that clears up, and Ctrl-C at any moment.
 *
 * Invariant: however it ends, no process of it runs afterwards, and its directory is gone unless it was asked to stay. It
 * prevents the first thing that a newcomer runs from leaving something behind.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { PacsimileError } from '../../shared/errors.ts'
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

/** @returns the exit status @throws what failed, when the demo fails */
export async function runDemo(options: DemoOptions): Promise<number> {
  const directory = emptyDirectory(options.directory)
  const interrupted = new AbortController()
  const interrupt = (): void => interrupted.abort()
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  const site = new DemoSite(directory)
  const story = new DemoStory(site, { isTold: !options.json, stays: options.stay })
  try {
    const figures = await orInterrupted(story.run(), interrupted.signal)
    if (options.json) sayJson({ ok: true, ...(options.stay ? { directory } : {}), ...figures })
    if (options.stay) await story.stay(interrupted.signal)
    return 0
  } finally {
    await site.end()
    if (!options.stay) rmSync(directory, { recursive: true, force: true })
    // The story would go on telling itself, with nobody to listen and its directory gone.
    if (interrupted.signal.aborted) {
      note(options.stay ? `Everything is left in ${directory}; delete it when you are done.` : 'Interrupted; nothing is left behind.')
      process.exit(INTERRUPTED)
    }
  }
}

/** @throws target-not-empty */
function emptyDirectory(wanted: string | undefined): string {
  if (wanted === undefined) return mkdtempSync(join(tmpdir(), 'pacsimile-demo-'))
  const directory = resolve(wanted)
  mkdirSync(directory, { recursive: true })
  if (readdirSync(directory).length > 0) throw new PacsimileError('target-not-empty', `${directory} is not empty`)
  return directory
}

function orInterrupted<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(new PacsimileError('incomplete', 'The demo was interrupted')), { once: true })
    work.then(resolve, reject)
  })
}
