/**
 * Owners that have other numbers on the host that is restored to: `--owner-map FROM:TO`.
 *
 * Invariant: an owner is mapped by what it was, once, whatever the map says of what it becomes. It prevents two users who change places from becoming one.
 */
import { readFileSync } from 'node:fs'
import { errnoOf, PacsimileError } from '../shared/errors.ts'
import type { ListedEntry } from './history-source.ts'

export interface OwnerMap {
  readonly users: ReadonlyMap<number, number>
  readonly groups: ReadonlyMap<number, number>
}

const ID_MAX = 0xffff_fffe

/**
 * Each `FROM:TO`, `user:FROM:TO` or `group:FROM:TO`; FROM and TO are numbers, or names of this host. Without a word before it, users and groups.
 * @throws usage
 */
export function parseOwnerMap(texts: readonly string[]): OwnerMap {
  const users = new Map<number, number>()
  const groups = new Map<number, number>()
  for (const text of texts) {
    const match = /^(?:(user|group):)?([^:]+):([^:]+)$/.exec(text)
    const [, kind, from = '', to = ''] = match ?? []
    if (match === null) throw new PacsimileError('usage', `${JSON.stringify(text)} is not FROM:TO, user:FROM:TO or group:FROM:TO`)
    if (kind !== 'group') add(users, idOf(from, '/etc/passwd', text), idOf(to, '/etc/passwd', text), text)
    if (kind !== 'user') add(groups, idOf(from, '/etc/group', text), idOf(to, '/etc/group', text), text)
  }
  return { users, groups }
}

function add(map: Map<number, number>, from: number, to: number, text: string): void {
  if (map.has(from) && map.get(from) !== to)
    throw new PacsimileError('usage', `--owner-map ${text}: ${from} is mapped to something else already`)
  map.set(from, to)
}

function idOf(name: string, file: string, text: string): number {
  if (/^\d+$/.test(name)) {
    if (Number(name) <= ID_MAX) return Number(name)
    throw new PacsimileError('usage', `--owner-map ${text}: ${name} is no number of a user or group`)
  }
  const id = namesOf(file).get(name)
  if (id === undefined) throw new PacsimileError('usage', `--owner-map ${text}: ${file} of this host names no ${name}; give its number`)
  return id
}

/** Lines NAME:x:ID:… */
function namesOf(file: string): Map<string, number> {
  let text = ''
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
  return new Map(text.split('\n').map((line) => [line.split(':')[0] ?? '', Number(line.split(':')[2])]))
}

export function withOwner(entry: ListedEntry, map: OwnerMap | undefined): ListedEntry {
  if (map === undefined) return entry
  const { uid, gid } = entry.version
  return { ...entry, version: { ...entry.version, uid: map.users.get(uid) ?? uid, gid: map.groups.get(gid) ?? gid } }
}
