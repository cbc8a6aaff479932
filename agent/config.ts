/**
 * The agent's configuration, `agent.toml` in the state directory: what is protected, and where it is sent.
 *
 * Invariant: volumes are separate trees, and their names and paths say the same thing at every start. It prevents a file
 * from being captured twice under two names. Whether a volume's directory exists is asked when it is enrolled, never at
 * start: a disk that is not mounted yet must not keep the agent from protecting the others.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { formatConfig, readConfig } from '../shared/config.ts'
import { PacsimileError } from '../shared/errors.ts'
import { createFileDurably, isPresent, makeDirectory } from '../shared/files.ts'
import { IGNORE_PATTERNS_MAX, PATH_BYTES_MAX, SPOOL_BYTES_MAX } from '../shared/limits.ts'
import { LOG_LEVELS } from '../shared/log-levels.ts'
import { byteString, isWithin, type Label, label, relativePath, showPath } from '../shared/path.ts'
import { PRIORITIES } from './priority.ts'
import { WATCH_CHOICES } from './watch/watch-choice.ts'

const labelled = (what: string) =>
  z.string().transform((text, context): Label => {
    try {
      return label(text, what)
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'not allowed' })
      return z.NEVER
    }
  })

const directory = z
  .string()
  .max(PATH_BYTES_MAX)
  .regex(/^\/./, 'must be an absolute directory, and not the root of the file system')
  .refine((path) => isCanonical(path), "must not contain '.', '..' or '//', nor end in '/'")

const VOLUME = z.strictObject({
  name: labelled('The volume name'),
  path: directory,
  /** What is not captured, in gitignore syntax; nothing by default. */
  ignore: z.array(z.string().min(1).max(PATH_BYTES_MAX)).max(IGNORE_PATTERNS_MAX).default([]),
  /** Confirms that this directory is the volume, after it was moved or made anew. */
  acceptRoot: z
    .string()
    .regex(/^\d+-\d+$/, 'must be as the alarm gives it')
    .optional(),
  /** Confirms that the volume may be empty though it held something before. */
  acceptEmpty: z.boolean().default(false),
})

const EVERY_SECONDS = 300
const RECONCILE_SECONDS = 3600

const AGENT_CONFIG = z
  .strictObject({
    name: labelled('The agent name'),
    collector: z.string().regex(/^wss:\/\/[^/?#]+$/, 'must be of the form wss://HOST:PORT'),
    volume: z.array(VOLUME).min(1, 'at least one volume is needed'),
    spool: z.strictObject({ quotaBytes: z.number().int().nonnegative().default(SPOOL_BYTES_MAX) }).default({ quotaBytes: SPOOL_BYTES_MAX }),
    /** `auto` takes fanotify where it can. */
    watch: z.enum(WATCH_CHOICES).default('auto'),
    scan: z
      .strictObject({
        /** Where events may be lost. */
        everySeconds: z.number().int().min(1).default(EVERY_SECONDS),
        /** Where they are not: for what makes no events. */
        reconcileSeconds: z.number().int().min(1).default(RECONCILE_SECONDS),
      })
      .default({ everySeconds: EVERY_SECONDS, reconcileSeconds: RECONCILE_SECONDS }),
    /** Whether the PACS goes first. */
    priority: z.enum(PRIORITIES).default('idle'),
    logLevel: z.enum(LOG_LEVELS).default('info'),
  })
  .superRefine(({ volume: volumes }, context) => {
    for (const [i, volume] of volumes.entries()) {
      for (const other of volumes.slice(0, i)) {
        if (other.name === volume.name)
          context.addIssue({ code: 'custom', message: `two volumes are named ${volume.name}`, path: ['volume', i, 'name'] })
        if (areNested(other.path, volume.path)) {
          context.addIssue({ code: 'custom', message: `${volume.path} and ${other.path} lie in each other`, path: ['volume', i, 'path'] })
        }
      }
    }
  })

export type AgentConfig = z.output<typeof AGENT_CONFIG>
export type AgentConfigInput = z.input<typeof AGENT_CONFIG>

function isCanonical(path: string): boolean {
  try {
    relativePath(byteString(path.slice(1)))
    return true
  } catch {
    return false
  }
}

function areNested(a: string, b: string): boolean {
  const [first, second] = [relativePath(byteString(a.slice(1))), relativePath(byteString(b.slice(1)))]
  return isWithin(first, second) || isWithin(second, first)
}

function configFile(stateDir: string): string {
  return join(stateDir, 'agent.toml')
}

/** Whether an agent is enrolled in this directory. */
export function isConfigured(stateDir: string): boolean {
  return isPresent(configFile(stateDir))
}

/** Checks what is to be written, and that the volumes are there. @throws config-invalid */
export function checkAgentConfig(config: AgentConfigInput): void {
  const checked = AGENT_CONFIG.safeParse(config)
  if (!checked.success) throw new PacsimileError('config-invalid', checked.error.issues.map(({ message }) => message).join('; '))
  for (const { name, path } of checked.data.volume) {
    const stats = statSync(path, { throwIfNoEntry: false })
    if (stats === undefined) throw new PacsimileError('config-invalid', `Volume ${name}: ${showPath(byteString(path))} does not exist`)
    if (!stats.isDirectory()) throw new PacsimileError('config-invalid', `Volume ${name}: ${showPath(byteString(path))} is not a directory`)
  }
}

/** Writes `agent.toml`. @throws already-exists, io, space */
export function createAgentConfig(stateDir: string, config: AgentConfigInput): void {
  makeDirectory(stateDir)
  createFileDurably(configFile(stateDir), formatConfig(config))
}

/** @throws config-invalid, not-found */
export function readAgentConfig(stateDir: string): AgentConfig {
  if (!isConfigured(stateDir)) {
    throw new PacsimileError(
      'not-found',
      `There is no agent in ${stateDir}: ${configFile(stateDir)} is missing. Run \`pacsimile agent enroll\`.`,
    )
  }
  return readConfig(configFile(stateDir), AGENT_CONFIG)
}
