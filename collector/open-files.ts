/**
 * Which processes write to something in a directory, or stand in it: those of this host, as /proc tells.
 *
 * Others' processes are seen by root alone. It prevents a failover from ending under a program that still writes.
 */
import { constants, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { errnoOf } from '../shared/errors.ts'

export interface User {
  readonly pid: number
  /** Its short name. */
  readonly command: string
  /** One of the paths. */
  readonly path: string
}

/** Bits of open(2)'s flags. */
const ACCESS_MODE = 3

/** But for the processes named. */
export function usersOf(directory: string, except: ReadonlySet<number>): User[] {
  const root = realpathSync(directory)
  const users: User[] = []
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    if (!Number.isInteger(pid) || except.has(pid)) continue
    const path = openedBy(pid).find((opened) => opened === root || opened.startsWith(`${root}/`))
    if (path !== undefined) users.push({ pid, command: commandOf(pid), path })
  }
  return users
}

function commandOf(pid: number): string {
  return attempt('?', () => readFileSync(`/proc/${pid}/comm`, 'utf8').trim())
}

/** What it writes to, and where it stands. Who only reads, as an agent that looks at every change of a filesystem, loses nothing. */
function openedBy(pid: number): string[] {
  const links = [`/proc/${pid}/cwd`, `/proc/${pid}/root`, ...writtenBy(pid).map((fd) => `/proc/${pid}/fd/${fd}`)]
  return links.flatMap((link) => attempt<string[]>([], () => [readlinkSync(link)]))
}

function writtenBy(pid: number): string[] {
  return attempt([], () => readdirSync(`/proc/${pid}/fdinfo`)).filter((fd) => {
    const [, flags = '0'] = /^flags:\s+([0-7]+)/m.exec(attempt('', () => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))) ?? []
    return (Number.parseInt(flags, 8) & ACCESS_MODE) !== constants.O_RDONLY
  })
}

/** What has ended, or is not ours to look at, has the other answer. */
function attempt<Answer>(otherwise: Answer, ask: () => Answer): Answer {
  try {
    return ask()
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return otherwise
  }
}
