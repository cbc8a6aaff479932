/**
 * Every error that a person or a script can meet, in one table.
 *
 * Invariant: an error that leaves the program carries a code of this table, and the table alone decides its exit status.
 * It prevents scripts that match on message texts, and two commands that answer the same failure differently.
 * docs/errors.md repeats the table for readers; a test holds the two equal.
 */

export interface ErrorMeaning {
  /** Exit status of a command that ends with this error. */
  readonly exit: number
  /** Whether the same call may succeed later with nothing changed by hand. */
  readonly retryable: boolean
  /** What the reader should do. */
  readonly advice: string
}

export const ERRORS = {
  'internal': { exit: 1, retryable: false, advice: 'A fault in Pacsimile itself. Report it with the message and the log.' },
  'usage': { exit: 2, retryable: false, advice: 'Correct the command line; `pacsimile COMMAND --help` lists the options.' },
  'damage': {
    exit: 3,
    retryable: false,
    advice:
      'Stored bytes are not what was written. Keep the repository as it is; restore what is listed as whole, and replace the damaged objects from another copy.',
  },
  'not-found': { exit: 4, retryable: false, advice: 'Check the names with `pacsimile status` and `pacsimile ls`.' },
  'outside-window': { exit: 4, retryable: false, advice: 'Choose a moment that `pacsimile window` lists.' },
  'collector-unreachable': {
    exit: 5,
    retryable: true,
    advice: 'Start the collector (`pacsimile collector run`), or name its --data directory; with a dead collector use --repository.',
  },
  'agent-unreachable': { exit: 5, retryable: true, advice: 'Start the agent (`pacsimile agent run`), or name its --state directory.' },
  'key-missing': { exit: 6, retryable: false, advice: 'Give the key with --key-file, PACSIMILE_PASSPHRASE, or PACSIMILE_RECOVERY_KEY.' },
  'key-wrong': {
    exit: 6,
    retryable: false,
    advice: 'No key slot of this repository opens with what was given. Use the key, passphrase or recovery key that belongs to it.',
  },
  'not-trusted': {
    exit: 6,
    retryable: false,
    advice: 'The certificate is not of this installation, is revoked, or has expired. Enrol the agent, or the restorer, again.',
  },
  'not-allowed': {
    exit: 6,
    retryable: false,
    advice:
      'This restorer may read other volumes only; `pacsimile restorer list` at the collector says which. A new token of `pacsimile restorer token` can allow more.',
  },
  'token-invalid': {
    exit: 6,
    retryable: false,
    advice: 'Tokens work once and expire. Make a new one with `pacsimile token create`, or `pacsimile restorer token` for a restorer.',
  },
  'timeout': {
    exit: 7,
    retryable: true,
    advice: 'Look at `pacsimile status` for what is behind, then try again or with a longer --timeout.',
  },
  'rebuilding': {
    exit: 7,
    retryable: true,
    advice:
      'Nothing is lost. Try again when `pacsimile status` says no more that the catalog is being made; for a restore that cannot wait, read the repository itself with --repository.',
  },
  'busy': { exit: 7, retryable: true, advice: 'The collector answers as much at once as it may. Try again, with fewer connections.' },
  'incomplete': {
    exit: 8,
    retryable: false,
    advice: 'Everything else was done. The listed files could not be; see the reason beside each.',
  },
  'config-invalid': { exit: 9, retryable: false, advice: 'Correct the named key in the configuration file.' },
  'already-exists': { exit: 9, retryable: false, advice: 'Choose another directory or name; nothing was overwritten.' },
  'target-not-empty': { exit: 9, retryable: false, advice: 'Choose an empty or new directory.' },
  'unfinished': {
    exit: 9,
    retryable: false,
    advice: 'Something that was begun there has not ended. End it or take it back, as the message says.',
  },
  'locked': { exit: 9, retryable: true, advice: 'Another process uses this directory. Stop it first, or talk to it.' },
  'io': {
    exit: 10,
    retryable: true,
    advice:
      'The operating system refused; see the reason. Where it denies permission, run the command as root or as the owner; else mend the disk, then start again.',
  },
  'format-unknown': { exit: 11, retryable: false, advice: 'The data was written by a newer Pacsimile. Use that version or a newer one.' },
  'format-invalid': { exit: 11, retryable: false, advice: 'The bytes are not in this format: wrong file, or damaged.' },
  'protocol': {
    exit: 12,
    retryable: true,
    advice: 'The peer broke the protocol; the session was closed and nothing was lost. Check that both sides are of compatible versions.',
  },
  'version-refused': {
    exit: 12,
    retryable: false,
    advice: 'The peer speaks another major version of the protocol. Upgrade the older side.',
  },
  'held': {
    exit: 9,
    retryable: true,
    advice: 'A hold was set while prune was running, and it stopped. What had expired by then stays so. Run the command again.',
  },
  'forked': {
    exit: 13,
    retryable: false,
    advice:
      'The journal does not continue the one that the collector holds. The agent starts a new epoch with a full scan by itself; check that no copied agent state is running elsewhere.',
  },
  'fenced': {
    exit: 13,
    retryable: false,
    advice:
      'Another collector writes this copy, or it holds another history; nothing was overwritten. Find out which collector is the right one, then `pacsimile copy remove` it here, or stop the other.',
  },
  'space': { exit: 14, retryable: true, advice: 'Free space on the named filesystem.' },
  'unsupported': { exit: 15, retryable: false, advice: 'This platform or filesystem lacks what was asked for.' },
  'replica-stopped': {
    exit: 16,
    retryable: false,
    advice:
      'Applying to the replica of this volume is stopped; the history goes on. `pacsimile status` says why; `pacsimile replica resume` or `replica rewind` decides.',
  },
} as const satisfies Record<string, ErrorMeaning>

export type ErrorCode = keyof typeof ERRORS

/** The one error class. `message` says what failed and on what; `code` says what kind of failure it is. */
export class PacsimileError extends Error {
  readonly code: ErrorCode
  /** Facts for machines (`--json`), never secrets. */
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; details?: Record<string, unknown> } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'PacsimileError'
    this.code = code
    this.details = options.details ?? {}
  }

  get exit(): number {
    return ERRORS[this.code].exit
  }

  get advice(): string {
    return ERRORS[this.code].advice
  }
}

/** The `errno` name (`ENOENT`) of a system error, or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return undefined
  return /^E[A-Z0-9]+$/.test(error.code) ? error.code : undefined
}

/** Text of anything thrown: libraries throw strings too. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Wraps whatever was thrown, once, where meaning is added; keeps a PacsimileError as it is. */
export function asPacsimileError(error: unknown, what: string): PacsimileError {
  if (error instanceof PacsimileError) return error
  const errno = errnoOf(error)
  if (errno === 'ENOSPC' || errno === 'EDQUOT') return new PacsimileError('space', `${what}: ${reasonOf(error)}`, { cause: error })
  if (errno !== undefined) return new PacsimileError('io', `${what}: ${reasonOf(error)}`, { cause: error, details: { errno } })
  return new PacsimileError('internal', `${what}: ${reasonOf(error)}`, { cause: error })
}
