/**
 * Does one thing to a data directory, as a collector does it, in a process of its own, so that it can be killed, or its disk can fail, at
 * any step.
 *
 *     node archive-work.ts DATA KEY-HEX open              opens it, as each start does
 *     node archive-work.ts DATA KEY-HEX commit JOURNAL    takes in a journal, until what is full is sealed
 *     node archive-work.ts DATA KEY-HEX checkpoint        makes a checkpoint of the catalog
 *     node archive-work.ts DATA KEY-HEX copy DIRECTORY    makes the directory a copy, and brings it to what is committed
 *
 * Prints a line for each acknowledgement (`acked SEQ`) and for each full file that is not sealed (`unsealed CODE`), and at last `done`, or
 * the code of the error, whose message goes to stderr.
 */
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Catalog } from '../../collector/catalog.ts'
import { openCatalog } from '../../collector/catalog-opening.ts'
import { Checkpoints, catalogFromCheckpoint } from '../../collector/checkpoint.ts'
import { ChunkCache } from '../../collector/chunk-cache.ts'
import { Copier } from '../../collector/copier.ts'
import { beginCopy } from '../../collector/copy-begin.ts'
import { instanceOf, openCopy } from '../../collector/copy-definition.ts'
import { CopyStateFile } from '../../collector/copy-state.ts'
import { Ingest } from '../../collector/ingest.ts'
import type { IngestSession } from '../../collector/ingest-item.ts'
import { endOfLedger } from '../../collector/ledger-view.ts'
import { replay } from '../../collector/replay.ts'
import { DEFAULT_PARITY } from '../../collector/repository/parity.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { RunningTime } from '../../collector/running-time.ts'
import { asPacsimileError } from '../../shared/errors.ts'
import { type Log, silentLog } from '../../shared/log.ts'
import { label } from '../../shared/path.ts'
import { readJournal } from './written-journal.ts'

const [, , dataDir = '', key = '', what = '', where = ''] = process.argv
const dataKey = Buffer.from(key, 'hex')
const directory = join(dataDir, 'catalog')

interface Parts {
  readonly catalog: Catalog
  readonly repository: Repository
  readonly ingest: Ingest
}

/** At once, so that what was said before a kill was said. */
function say(line: string): void {
  appendFileSync(1, `${line}\n`)
}

/** In the order of collector.ts. */
async function withParts(use: (parts: Parts) => Promise<void>): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const catalog = stack.adopt(await openCatalog(directory, silentLog, fromCheckpoint), (opened) => opened.close())
  const repository = stack.adopt(
    Repository.openForAppending(join(dataDir, 'repository'), dataKey, catalog.reflected(), {
      parity: DEFAULT_PARITY,
      onUnsealed: (_, { code }) => say(`unsealed ${code}`),
    }),
    async (opened) => {
      await opened.sealed()
      opened.close()
    },
  )
  await replay(repository, catalog)
  const age = new RunningTime(endOfLedger(catalog).ageMs)
  const ingest = new Ingest({ repository, catalog, cache: new ChunkCache(0), log: silentLog, age, onCommit() {} })
  const stop = new AbortController()
  const running = ingest.run(stop.signal)
  try {
    await Promise.race([use({ catalog, repository, ingest }), running.then(() => Promise.reject(new Error('commits have ended')))])
  } finally {
    stop.abort()
    await running
  }
}

function fromCheckpoint(at: string): boolean {
  const repository = Repository.open(join(dataDir, 'repository'), dataKey)
  try {
    return catalogFromCheckpoint(repository, at)
  } finally {
    repository.close()
  }
}

/** As an agent sends it: from where the collector is, and again where that failed. */
async function commit({ catalog, ingest }: Parts): Promise<void> {
  const { agent, groups } = readJournal(where)
  for (const { chunks, records } of groups) {
    const last = records.at(-1)?.seq ?? 0
    for (let failed = true; failed; ) {
      if ((catalog.chainEnd(agent)?.seq ?? 0) >= last) break
      failed = await new Promise<boolean>((resolve) => {
        const session: IngestSession = {
          agent,
          lost: new Set(),
          committed: ({ seq }) => {
            say(`acked ${seq}`)
            resolve(false)
          },
          failed: ({ code }) => {
            say(`failed ${code}`)
            resolve(true)
          },
        }
        void (async () => {
          for (const chunk of chunks) await ingest.submit({ session, chunk })
          await ingest.submit({ session, records: records.map(({ bytes }) => bytes) })
        })()
      })
    }
  }
}

async function copy({ catalog, repository }: Parts): Promise<void> {
  const named = {
    name: label('usb', 'The name of a copy'),
    definition: { version: 1 as const, url: `fs:${where}`, added: new Date().toISOString() },
  }
  await beginCopy(dataDir, repository, named)
  const stop = new AbortController()
  const removals = new CopyStateFile(dataDir, named.name)
  const log: Log = { ...silentLog, error: (_, facts) => say(`failing ${String(facts?.['code'])} ${String(facts?.['reason'])}`) }
  const copier = new Copier({
    name: named.name,
    url: named.definition.url,
    open: (signal) => openCopy(named.definition, signal),
    writer: { repository: repository.id, instance: instanceOf(dataDir) },
    repository,
    committed: () => catalog.reflected(),
    removals,
    log,
    lingerMs: 0,
    probeMs: 0,
    onHeld: () => {
      if (removals.pending.length === 0) stop.abort()
    },
    backoffMs: { first: 10, most: 50 },
  })
  await copier.run(stop.signal)
}

const works: Record<string, (parts: Parts) => Promise<void>> = {
  open: () => Promise.resolve(),
  commit,
  checkpoint: (parts) => new Checkpoints({ ...parts, directory, log: silentLog }).make(),
  copy,
}

try {
  const work = works[what]
  if (work === undefined) throw new Error(`there is nothing called ${what}`)
  await withParts(work)
  say('done')
} catch (error) {
  const { code, message } = asPacsimileError(error, what)
  say(code)
  process.stderr.write(message)
}
