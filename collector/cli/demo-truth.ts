/**
 * The demo's independent record of what a directory held at a moment.
 *
 * It is a walk and a hash (SHA-256) of its own and shares no code with what it judges. It prevents a fault in Pacsimile's
 * own reading of files from vouching for itself.
 */
import { createHash } from 'node:crypto'
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

/** Path -> everything about it that must come back. */
export type Truth = ReadonlyMap<string, string>

export function truthOf(root: string): Truth {
  const found = new Map<string, string>()
  const visit = (path: string): void => {
    const file = join(root, path)
    const stat = lstatSync(file, { bigint: true })
    const facts = `mode ${(stat.mode & 0o7777n).toString(8)}, owner ${stat.uid}:${stat.gid}, modified ${stat.mtimeNs}`
    if (stat.isDirectory()) {
      found.set(path, `directory, ${facts}`)
      for (const name of readdirSync(file)) visit(join(path, name))
    } else if (stat.isSymbolicLink()) {
      found.set(path, `link to ${readlinkSync(file)}, ${facts}`)
    } else {
      found.set(path, `${stat.size} bytes, SHA-256 ${createHash('sha256').update(readFileSync(file)).digest('hex')}, ${facts}`)
    }
  }
  visit('')
  return found
}

/** What is not as it was, in words. */
export function differences(expected: Truth, found: Truth): string[] {
  const words: string[] = []
  for (const [path, facts] of expected) {
    const other = found.get(path)
    if (other !== facts) words.push(`${path === '' ? '.' : path}: ${other ?? 'missing'}, expected ${facts}`)
  }
  for (const path of found.keys()) if (!expected.has(path)) words.push(`${path}: should not be there`)
  return words
}
