/**
 * Where this host's restores in place are, by their ids: one small file each, naming the directory that was restored into.
 *
 * What counts is in the undo places; this only finds them. Invariant: an entry is made before the restore changes anything. It prevents somebody who has only the id
 * from not finding the way back.
 */
import { readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { asPacsimileError, errnoOf } from '../shared/errors.ts'
import { makeDirectory, readIfPresent, removeFileDurably, writeFileDurably } from '../shared/files.ts'

const ID = /^[0-9a-f]{12}$/

export class UndoIndex {
  readonly #directory: string

  constructor(directory: string = defaultDirectory()) {
    this.#directory = directory
  }

  /** @throws io, space */
  add(id: string, target: string): void {
    makeDirectory(this.#directory)
    writeFileDurably(join(this.#directory, id), `${target}\n`)
  }

  /** The directory that was restored into; undefined where it is not known here. @throws io */
  find(id: string): string | undefined {
    return ID.test(id) ? readIfPresent(join(this.#directory, id))?.toString('utf8').replace(/\n$/, '') : undefined
  }

  /** @throws io */
  remove(id: string): void {
    if (ID.test(id)) removeFileDurably(join(this.#directory, id))
  }

  /** Every directory that is known, once. @throws io */
  targets(): string[] {
    try {
      const ids = readdirSync(this.#directory).filter((name) => ID.test(name))
      return [...new Set(ids.flatMap((id) => this.find(id) ?? []))].toSorted()
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw asPacsimileError(error, `Looking into ${this.#directory}`)
    }
  }
}

/** Whoever is not root restores into directories of their own. */
function defaultDirectory(): string {
  const asked = process.env['PACSIMILE_RESTORES']
  if (asked !== undefined && asked !== '') return asked
  return process.getuid?.() === 0 ? '/var/lib/pacsimile/restores' : join(homedir(), '.local/state/pacsimile/restores')
}
