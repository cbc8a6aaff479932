/**
 * Which records `log` shows: by what they did, to which names, by whom.
 *
 * Invariant: a filter that cannot be understood is refused before anything is read. It prevents `--op delete`, which nothing
 * is called, from answering "nothing was deleted".
 */
import { PacsimileError } from '../../shared/errors.ts'
import { parseShownPath } from '../../shared/path.ts'
import { writerOf } from '../../shared/version-extensions.ts'
import type { LogEntry } from '../history-source.ts'
import { nameMatcher } from '../path-pattern.ts'

type Filter = (entry: LogEntry) => boolean
type Op = LogEntry['record']['kind']

export const LOG_OPS: readonly Op[] = ['put', 'remove', 'rename', 'lost', 'epoch', 'volume', 'sweep', 'gap', 'coverage', 'mark']

export interface LogFilters {
  readonly match: string | undefined
  /** Joined by commas. */
  readonly op: string | undefined
  /** `uid:N`, `pid:N`, or a part of the path of the executable. */
  readonly writer: string | undefined
}

/** Of what passes all that are given. @throws usage */
export function logFilter({ match, op, writer }: LogFilters): Filter {
  const filters = [
    ...(match === undefined ? [] : [byName(match)]),
    ...(op === undefined ? [] : [byOp(op)]),
    ...(writer === undefined ? [] : [byWriter(writer)]),
  ]
  return (entry) => filters.every((passes) => passes(entry))
}

function byName(pattern: string): Filter {
  const matches = nameMatcher(parseShownPath(pattern), false)
  return ({ record }) => {
    if (record.kind === 'rename') return matches(record.path) || matches(record.to)
    return 'path' in record && matches(record.path)
  }
}

function byOp(text: string): Filter {
  const wanted = new Set(text.split(',').map((word) => word.trim()))
  const unknown = [...wanted].find((word) => !(LOG_OPS as readonly string[]).includes(word))
  if (unknown !== undefined) throw new PacsimileError('usage', `--op ${JSON.stringify(unknown)}: there are ${LOG_OPS.join(', ')}`)
  return ({ record }) => wanted.has(record.kind)
}

function byWriter(text: string): Filter {
  const [, what, number] = /^(uid|pid):(\d+)$/.exec(text) ?? []
  const part = parseShownPath(text)
  return ({ version }) => {
    const writer = version === undefined ? undefined : writerOf(version)
    if (writer === undefined) return false
    if (what === undefined) return writer.executable.includes(part)
    return (what === 'uid' ? writer.uid : writer.pid) === Number(number)
  }
}
