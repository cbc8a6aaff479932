/**
 * The collector: opens its parts in order and runs them under one signal.
 *
 * Order at start: lock (the catalog's), repository (torn tails are cut), fold of what the catalog lacks, then ingest and
 * replica, and only then the port; where the catalog lacks much, the port is opened first, and everything that reads it waits. Order at stop: the port, ingest (commits what it has), replica, catalog.
 */
import { join } from 'node:path'
import { HybridClock, millisecondsOf, systemClock } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { CHUNK_CACHE_BYTES } from '../shared/limits.ts'
import { serveLocal } from '../shared/local-api.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { adminRoutes, whenFolded } from './admin.ts'
import type { Catalog } from './catalog.ts'
import { type MakeFiles, openCatalog } from './catalog-opening.ts'
import { CatchUp } from './catch-up.ts'
import { Checkpoints, catalogFromCheckpoint, forgetForeignDamage } from './checkpoint.ts'
import { ChunkCache } from './chunk-cache.ts'
import { ChunkHealer } from './chunk-heal.ts'
import { breakerRule, type CollectorConfig, driftRule, keepsReplica, parityShape, parseListen } from './config.ts'
import { Copies } from './copies.ts'
import { Damages } from './damages.ts'
import { DriftRounds } from './drift-rounds.ts'
import { Enrollment } from './enrollment.ts'
import { FileHealer } from './file-heal.ts'
import { History } from './history.ts'
import { openIdentity } from './identity.ts'
import { Ingest } from './ingest.ts'
import { endOfLedger } from './ledger-view.ts'
import { Overview } from './overview.ts'
import { Prune } from './prune.ts'
import { Receiver } from './receiver.ts'
import { Replica } from './replica.ts'
import { ReplicaControl } from './replica-control.ts'
import { DEFAULT_PARITY } from './repository/parity.ts'
import { Repository } from './repository/repository.ts'
import { RestorerPort } from './restorer-port.ts'
import { policyOf, quarantineMs } from './retention.ts'
import { RunningTime } from './running-time.ts'
import { ScrubRounds, type ScrubRoundsParts } from './scrub-rounds.ts'
import { ScrubThread } from './scrub-thread.ts'
import { keepSealedIdentity } from './sealed-identity.ts'
import { Ticks } from './ticks.ts'

const DAY_MS = 24 * 3_600_000
const BYTES_PER_MB = 1e6
/** Every chunk that is offered may be looked up in another table. What is mapped of them is the page cache's, and goes when memory is short. */
const OPEN_TABLES = 1000

export interface CollectorOptions {
  readonly dataDir: string
  readonly config: CollectorConfig
  readonly dataKey: Buffer
  readonly log: Log
}

/** Runs until the signal is given. `onReady` is called when agents can connect. */
export async function collect(
  options: CollectorOptions,
  signal: AbortSignal,
  onReady: (address: { host: string; port: number }) => void,
): Promise<void> {
  const { dataDir, config, log } = options
  await using stack = new AsyncDisposableStack()
  const directory = join(dataDir, 'catalog')
  const catalog = stack.adopt(await openCatalog(directory, log, fromCheckpoint(options), OPEN_TABLES), (opened) => opened.close())
  const repository = stack.adopt(
    Repository.openForAppending(config.repository, options.dataKey, catalog.reflected(), {
      parity: parityShape(config),
      onUnsealed: (file, { code, message }) => log.error('a full file of the repository is not sealed', { file, code, reason: message }),
    }),
    async (opened) => {
      await opened.sealed()
      opened.close()
    },
  )
  await forgetForeignDamage(catalog, repository)
  const catchUp = await CatchUp.begin({ repository, catalog, log })

  const clock = new HybridClock(systemClock)
  const damages = await Damages.open(catalog)
  const cache = new ChunkCache(CHUNK_CACHE_BYTES)
  const history = new History(catalog, repository, { cache, damage: () => damages.list })
  const replica = openReplica(options, catalog, history)
  const age = new RunningTime(endOfLedger(catalog).ageMs)
  const taking: { ingest?: Ingest } = {}
  const copies = stack.use(
    Copies.open({
      dataDir,
      repository,
      committed: () => taking.ingest?.durable ?? catalog.reflected(),
      ackCopies: config.ackCopies,
      dataKey: options.dataKey,
      isDamaged: (path) => damages.list.some(({ file }) => file === path),
      scrub: config.scrubDays === 0 ? undefined : { roundMs: config.scrubDays * DAY_MS, bytesPerSecond: bytesPerSecond(config) },
      log,
    }),
  )
  const onCommit = (agents: ReadonlySet<Label>): void => {
    copies.hint()
    replica?.hint(agents)
  }
  const ingest = new Ingest({ repository, catalog, cache, log, age, unfolded: catchUp.unfolded, gate: copies.gate, onCommit })
  taking.ingest = ingest
  for (const agent of catchUp.unfolded?.agents ?? (await catalog.agents())) {
    const end = ingest.chainEnd(agent)
    // One agent's clock far ahead must not drag the collector's with it.
    if (end !== undefined && millisecondsOf(end.time) <= systemClock.now()) clock.atLeast(end.time)
  }

  // Each part is stopped only when what feeds it has ended: the port, then ingest, then the replica.
  const replicaStop = new AbortController()
  const ingestStop = new AbortController()
  const driftStop = new AbortController()
  const scrubStop = new AbortController()
  const ticksStop = new AbortController()
  const checkpointsStop = new AbortController()
  const identityStop = new AbortController()
  const failed = new AbortController()
  const background = (work: Promise<void>, stop: AbortController): void => {
    work.catch((error: unknown) => failed.abort(error))
    stack.defer(async () => {
      stop.abort()
      // A failure has been passed on already, by `failed`.
      await work.catch(() => {})
    })
  }
  const foldStop = new AbortController()
  const folded = catchUp.run(ingest, AbortSignal.any([signal, failed.signal, foldStop.signal])).then(async (isWhole) => {
    if (!isWhole) return false
    await damages.reread()
    age.goOnFrom(endOfLedger(catalog).ageMs)
    return true
  })
  /** Nobody follows a catalog, or writes what builds on it, before it has everything. */
  const following = (run: (signal: AbortSignal) => Promise<void>, stop: AbortController): void => {
    stop.signal.addEventListener('abort', () => foldStop.abort())
    background(
      folded.then((isWhole) => (isWhole ? run(stop.signal) : undefined)),
      stop,
    )
  }
  if (replica !== undefined) following((until) => replica.run(until), replicaStop)
  const drift = replica && new DriftRounds({ catalog, history, replica, rule: driftRule(config), special: config.replicaSpecial, log })
  background(ingest.run(ingestStop.signal), ingestStop)
  if (drift !== undefined) following((until) => drift.run(until), driftStop)
  const policy = policyOf(config.retention)
  // It ends after the port, whose sessions it may wait for.
  const listening: { receiver?: Receiver; restorers?: RestorerPort } = {}
  const ticks = new Ticks({ catalog, repository, ingest, policy, accessEnd: () => listening.restorers?.accessEnd() })
  following((until) => ticks.run(until), ticksStop)
  const checkpoints = new Checkpoints({ directory, catalog, repository, ingest, log })
  following((until) => checkpoints.run(until), checkpointsStop)
  const prune = new Prune({
    directory,
    catalog,
    repository,
    ingest,
    ticks,
    policy,
    age,
    quarantineMs: quarantineMs(config.retention),
    log,
    onDeleting: (pack) => copies.removeEverywhere('pack', pack),
    onDeleted: (path) => damages.forget(path),
  })
  const chunks = new ChunkHealer({
    catalog,
    repository,
    ingest,
    replica,
    fromCopies: (pack, names) => copies.chunks(pack, names),
    ask: (agent, chunk, spots) =>
      listening.receiver?.ask(agent, chunk, spots) ??
      Promise.reject(new PacsimileError('agent-unreachable', `Agent ${agent} is not connected yet`)),
  })
  const files = new FileHealer({ repository, ingest, chunks, fromCopy: (kind, number) => copies.heal(kind, number), log })
  const onCatalogDamage = (error: PacsimileError): void => failed.abort(error)
  const scrub = scrubbing(options, { repository, catalog, damages, chunks, files, catalogDirectory: directory, onCatalogDamage }, stack)
  if (scrub !== undefined) following((until) => scrub.run(until), scrubStop)

  const identity = openIdentity(dataDir)
  background(keepSealedIdentity({ dataDir, repository, dataKey: options.dataKey, log }, identityStop.signal), identityStop)
  const enrollment = new Enrollment(identity, (agent) => ingest.chainEnd(agent)?.epoch ?? 0, log)
  const restorers = new RestorerPort({ dataDir, identity, history, catalog, requireFolded: () => catchUp.requireDone(), log })
  const receiver = stack.adopt(
    await Receiver.listen(
      { identity, enrollment, ingest, repository: repository.description, clock, restorers, log },
      parseListen(config.listen),
    ),
    (opened) => opened.close(),
  )
  listening.receiver = receiver
  listening.restorers = restorers
  const overview = new Overview({
    dataDir,
    listen: config.listen,
    repository: repository.id,
    damages,
    copies,
    scrub,
    catalog,
    catchUp,
    enrolled: identity.agents,
    restorers: identity.restorers,
    ingest,
    receiver,
    replica,
  })
  stack.use(
    await serveLocal(
      join(dataDir, 'admin.sock'),
      whenFolded(
        catchUp,
        adminRoutes({
          overview,
          copies,
          history,
          receiver,
          catalog,
          enrolled: identity.agents,
          identity,
          replica,
          control: new ReplicaControl({ catalog, history, replica, drift }),
          prune,
          scrub,
        }),
      ),
    ),
  )
  const { address, port } = receiver.address
  onReady({ host: address, port })
  log.info('listening for agents', { address, port })

  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true })
    failed.signal.addEventListener('abort', () => resolve(), { once: true })
    if (signal.aborted) resolve()
  })
  if (failed.signal.aborted) throw failed.signal.reason
}

/** Undefined where no volume has one. */
function openReplica({ dataDir, config, log }: CollectorOptions, catalog: Catalog, history: History): Replica | undefined {
  if (!config.replica && !Object.values(config.replicaVolumes).includes('full')) return undefined
  return new Replica({
    directory: join(dataDir, 'replica'),
    catalog,
    history,
    log,
    special: config.replicaSpecial,
    rule: breakerRule(config),
    isKept: (agent, volume) => keepsReplica(config, `${agent}:${volume}`),
  })
}

/** So that a catalog that is missing, or was set aside, costs the fold of a tail. */
function fromCheckpoint({ config, dataKey }: CollectorOptions): MakeFiles {
  return (directory) => {
    const repository = Repository.open(config.repository, dataKey)
    try {
      return catalogFromCheckpoint(repository, directory)
    } finally {
      repository.close()
    }
  }
}

/** Undefined where it is switched off. */
function scrubbing(
  { dataDir, config, dataKey, log }: CollectorOptions,
  parts: Omit<ScrubRoundsParts, 'dataDir' | 'thread' | 'roundMs' | 'log'>,
  stack: AsyncDisposableStack,
): ScrubRounds | undefined {
  const { scrubDays } = config
  if (scrubDays === 0) return undefined
  const thread = stack.use(
    new ScrubThread(dataKey, { parity: parityShape(config) ?? DEFAULT_PARITY, bytesPerSecond: bytesPerSecond(config) }),
  )
  return new ScrubRounds({ ...parts, dataDir, thread, roundMs: scrubDays * DAY_MS, log })
}

function bytesPerSecond({ scrubMegabytesPerSecond }: CollectorConfig): number {
  return scrubMegabytesPerSecond * BYTES_PER_MB
}
