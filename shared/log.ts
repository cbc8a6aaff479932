/**
 * The log of the long-running programs: winston, JSON lines on stderr, for journald.
 *
 * One line per event that a person may act on; never one per chunk, record or file event. The only door to winston.
 */
import winston from 'winston'
import { LOG_LEVELS, type LogLevel } from './log-levels.ts'

export interface Log {
  debug(message: string, facts?: Readonly<Record<string, unknown>>): void
  info(message: string, facts?: Readonly<Record<string, unknown>>): void
  warn(message: string, facts?: Readonly<Record<string, unknown>>): void
  error(message: string, facts?: Readonly<Record<string, unknown>>): void
  /** Resolves when every line was handed to the operating system. */
  close(): Promise<void>
}

export function openLog(program: 'agent' | 'collector', level: LogLevel = 'info'): Log {
  const logger = winston.createLogger({
    level,
    defaultMeta: { program },
    format: winston.format.combine(winston.format.timestamp(), winston.format.json({ bigint: true })),
    transports: [new winston.transports.Console({ stderrLevels: [...LOG_LEVELS] })],
  })
  return {
    debug: (message, facts) => void logger.debug(message, facts),
    info: (message, facts) => void logger.info(message, facts),
    warn: (message, facts) => void logger.warn(message, facts),
    error: (message, facts) => void logger.error(message, facts),
    close: () =>
      new Promise((resolve) => {
        logger.once('finish', () => resolve())
        logger.end()
      }),
  }
}

/** A log that says nothing: for tests and one-shot commands. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {}, close: () => Promise.resolve() }
