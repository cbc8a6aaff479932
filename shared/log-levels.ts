/** The levels of the log (log.ts), for whoever reads a configuration and writes no log: the library behind it takes longer to load than many a command runs. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]
