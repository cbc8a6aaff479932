/**
 * What is being written before it has its name: with no name, or beside that name, under one that nobody else has.
 *
 * Invariant: a name is made once, and begins with what cannot be guessed. It prevents a process that works in the same directory from putting
 * something of its own under a name that is about to be written.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, constants, unlinkSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { errnoOf, PacsimileError } from '../shared/errors.ts'
import { TEMPORARY_PREFIX } from '../shared/files.ts'
import { pathBuffer, type RelativePath, ROOT } from '../shared/path.ts'
import type { SafeDirectory } from './safe-directory.ts'

/** Of what is being written and has a name. */
const MODE = 0o600
const PERMISSIONS = 0o777

/** A file that only we can read so far. */
export interface Draft {
  /** Undefined where it has no name. */
  readonly at: RelativePath | undefined
  readonly fd: number
  isOpen: boolean
}

export class Drafts {
  readonly #directory: SafeDirectory
  #prefix = newPrefix()
  #last = 0
  #isUnnamed: boolean

  /** `isUnnamed`: where the filesystem can; it is less work than a name and its change, for whom the right name is new. */
  constructor(directory: SafeDirectory, isUnnamed: boolean) {
    this.#directory = directory
    this.#isUnnamed = isUnnamed
  }

  /** A new and empty file beside the path, if it has a name. `mode`: the one that it will have. @throws the system's error */
  open(path: RelativePath, mode: number): Draft {
    if (!this.#isUnnamed) return this.#openNamed(path)
    try {
      // Nobody comes by what has no name: it may have its mode at once, but for what only an owner may be given.
      return { at: undefined, fd: this.#directory.openUnnamed(path, mode & PERMISSIONS), isOpen: true }
    } catch {
      // Filesystems have more than one word for what they do not have. If it was anything else, it is met here.
      const draft = this.#openNamed(path)
      this.#isUnnamed = false
      return draft
    }
  }

  #openNamed(path: RelativePath): Draft {
    try {
      return this.#create(path)
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
      // Somebody saw how the names go on; of these he has seen none.
      this.#prefix = newPrefix()
      return this.#create(path)
    }
  }

  #create(path: RelativePath): Draft {
    const at = this.nameBeside(path)
    return { at, fd: this.#directory.open(at, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, MODE), isOpen: true }
  }

  nameBeside(path: RelativePath): RelativePath {
    if (path === ROOT) throw new PacsimileError('format-invalid', 'The root of a volume can only be a directory')
    return (path.slice(0, path.lastIndexOf('/') + 1) + this.#prefix + (this.#last++).toString(36)) as RelativePath
  }

  close(draft: Draft): void {
    // Also where closing fails the descriptor is gone (close(2)).
    draft.isOpen = false
    closeSync(draft.fd)
  }

  /** It is not wanted any more. */
  drop(draft: Draft): void {
    if (draft.isOpen) this.close(draft)
    if (draft.at !== undefined) this.unlink(draft.at)
  }

  /** What has a name of ours, if there is anything. */
  unlink(at: RelativePath): void {
    try {
      unlinkSync(pathBuffer(this.#directory.at(at)))
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }
}

function newPrefix(): ByteString {
  return `${TEMPORARY_PREFIX}${randomBytes(8).toString('hex')}`
}
