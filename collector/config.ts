/**
 * The collector's configuration, DATA/collector.toml.
 *
 * Its presence means that DATA was initialised: `init` writes it last. Paths in it are relative to DATA.
 */
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { formatConfig, readConfig } from '../shared/config.ts'
import { PacsimileError } from '../shared/errors.ts'
import { createFileDurably } from '../shared/files.ts'
import { LOG_LEVELS } from '../shared/log-levels.ts'
import type { BreakerRule } from './breaker.ts'
import type { DriftRule } from './drift-rounds.ts'
import type { ParityShape } from './repository/parity.ts'
import { STRIPE_BLOCKS_MAX } from './repository/reed-solomon.ts'
import { RETENTION } from './retention.ts'

export const DEFAULT_LISTEN = '0.0.0.0:7443'

/** `0.0.0.0:7443`, `[::]:7443`, `backup.example:7443`. */
const LISTEN = /^(\[[0-9a-fA-F:.]+\]|[^\s:[\]]+):(\d{1,5})$/

const SCHEMA = z.strictObject({
  /** Host and port for agents. */
  listen: z
    .string()
    .refine((text) => Number(LISTEN.exec(text)?.[2] ?? Number.NaN) <= 65_535, 'not HOST:PORT')
    .default(DEFAULT_LISTEN),
  repository: z.string().min(1).default('repository'),
  /** Opens the repository's key at start; without it a passphrase is needed. */
  keyFile: z.string().min(1).optional(),
  /** Whether a live replica is kept. */
  replica: z.boolean().default(true),
  /** By AGENT:VOLUME, where it is other than that. */
  replicaVolumes: z.record(z.string().regex(/^[^:]+:[^:]+$/, 'not AGENT:VOLUME'), z.enum(['full', 'off'])).default({}),
  /** When a replica is paused because its volume is being lost. */
  breaker: z
    .strictObject({
      /** Percent of the files; 0 for never. */
      share: z.number().min(0).max(99).default(20),
      /** Fewer files never count. */
      files: z.number().int().min(1).default(50),
      /** Within so many seconds. */
      seconds: z.number().min(1).max(3600).default(60),
    })
    .prefault({}),
  /** Looking for what somebody wrote into a replica that is not in use. */
  drift: z
    .strictObject({
      /** Every so many hours; 0 for never by itself. */
      hours: z.number().min(0).default(24),
      /** What is put aside of a volume, at most. */
      megabytes: z.number().min(0).default(10_240),
    })
    .prefault({}),
  /** Whether it has fifos, sockets and device nodes; devices need root. */
  replicaSpecial: z.boolean().default(false),
  /** Of full packs and segments: so many damaged blocks of a stripe are repaired. */
  parity: z
    .string()
    .refine((text) => text === 'off' || isShape(text), 'neither off nor DATA+PARITY blocks, such as 10+2')
    .default('10+2'),
  /** Every file of the repository is read and verified once in so many days; 0 for never. */
  scrubDays: z.number().min(0).default(30),
  /** Read by scrubbing per second at most. */
  scrubMegabytesPerSecond: z.number().positive().default(50),
  /** How long versions are kept; for ever without it. */
  retention: RETENTION.optional(),
  /** In how many places, the repository itself being one, everything must be durable before agents are told so. */
  ackCopies: z.number().int().min(1).max(16).default(1),
  logLevel: z.enum(LOG_LEVELS).default('info'),
})

function isShape(text: string): boolean {
  const shape = shapeOf(text)
  return shape !== undefined && shape.dataBlocks + shape.parityBlocks <= STRIPE_BLOCKS_MAX
}

function shapeOf(text: string): ParityShape | undefined {
  const [, data, parity] = /^([1-9]\d{0,2})\+([1-9]\d{0,2})$/.exec(text) ?? []
  return data === undefined || parity === undefined ? undefined : { dataBlocks: Number(data), parityBlocks: Number(parity) }
}

/** Undefined: files are sealed without. */
export function parityShape({ parity }: Pick<CollectorConfig, 'parity'>): ParityShape | undefined {
  return shapeOf(parity)
}

/** Undefined: no volume is paused by itself. */
export function breakerRule({ breaker }: Pick<CollectorConfig, 'breaker'>): BreakerRule | undefined {
  const { share, files, seconds } = breaker
  return share === 0 ? undefined : { share: share / 100, files, windowMs: seconds * 1000 }
}

export function driftRule({ drift }: Pick<CollectorConfig, 'drift'>): DriftRule {
  return { everyMs: drift.hours * 3_600_000, bytesMax: drift.megabytes * 1e6 }
}

/** Of a volume, whether a replica of it is kept. */
export function keepsReplica({ replica, replicaVolumes }: Pick<CollectorConfig, 'replica' | 'replicaVolumes'>, name: string): boolean {
  return (replicaVolumes[name] ?? (replica ? 'full' : 'off')) === 'full'
}

export type CollectorConfig = z.output<typeof SCHEMA>

export function configFile(dataDir: string): string {
  return join(dataDir, 'collector.toml')
}

/** With absolute paths. @throws config-invalid, io */
export function readCollectorConfig(dataDir: string): CollectorConfig {
  const config = readConfig(configFile(dataDir), SCHEMA)
  const keyFile = config.keyFile === undefined ? {} : { keyFile: resolve(dataDir, config.keyFile) }
  return { ...config, repository: resolve(dataDir, config.repository), ...keyFile }
}

/** @throws already-exists, config-invalid */
export function createCollectorConfig(dataDir: string, config: z.input<typeof SCHEMA>): void {
  createFileDurably(configFile(dataDir), formatConfig(checkedConfig(config)))
}

/** @throws config-invalid */
export function checkedConfig(config: z.input<typeof SCHEMA>): CollectorConfig {
  const checked = SCHEMA.safeParse(config)
  if (checked.success) return checked.data
  const reasons = checked.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
  throw new PacsimileError('config-invalid', `The collector's configuration: ${reasons.join('; ')}`)
}

export function parseListen(text: string): { readonly host: string; readonly port: number } {
  const [, host, port] = LISTEN.exec(text) ?? []
  if (host === undefined || port === undefined) throw new PacsimileError('config-invalid', `${JSON.stringify(text)} is not HOST:PORT`)
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) }
}
