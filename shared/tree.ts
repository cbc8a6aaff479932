/**
 * What a record means: state is a fold of the journal, and this module is the fold.
 *
 * Catalog, replica, restore, check and scan ask here and have no opinion of their own.
 * Invariant: `effects` is a function of the record and the tree before it, and of nothing else.
 * It prevents two parts of the system from holding different histories.
 */
import { isWithin, parentOf, type RelativePath, ROOT, rebase } from './path.ts'
import { comparePositions, type JournalRecord, type Position } from './record.ts'
import type { Version } from './version.ts'

/** One path of a tree, with the position of the record that made it what it is. */
export interface TreeEntry {
  readonly path: RelativePath
  readonly position: Position
  readonly version: Version
}

/** What a fold needs to know of the state before: the tree of the record's volume. */
export interface Tree {
  at(path: RelativePath): TreeEntry | undefined
  /** The path itself and all below it, in the order of `pathKey`. */
  within(path: RelativePath): Iterable<TreeEntry>
}

/** A change of one path: it is this version now, or it is gone. */
export type Effect =
  | { readonly kind: 'is'; readonly path: RelativePath; readonly version: Version }
  | { readonly kind: 'gone'; readonly path: RelativePath }

/** The changes that a record makes to its volume's tree: each path at most once, those that go before those that come. */
export function* effects(record: JournalRecord, before: Tree): Generator<Effect> {
  switch (record.kind) {
    case 'put':
      if (record.version.kind !== 'directory' && before.at(record.path)?.version.kind === 'directory') {
        for (const { path } of before.within(record.path)) if (path !== record.path) yield { kind: 'gone', path }
      }
      yield { kind: 'is', path: record.path, version: record.version }
      return
    case 'remove':
      for (const { path } of before.within(record.path)) yield { kind: 'gone', path }
      return
    case 'rename':
      yield* renamed(record.path, record.to, before)
      return
    case 'sweep':
      for (const path of swept(before.within(ROOT), { epoch: record.epoch, seq: record.since })) yield { kind: 'gone', path }
      return
    case 'epoch':
    case 'volume':
    case 'gap':
    case 'coverage':
    case 'mark':
    case 'lost':
      return
  }
}

/** What a sweep ends: whatever was put before `since`, but for the directories that hold something put later. */
function swept(entries: Iterable<TreeEntry>, since: Position): Set<RelativePath> {
  const old = new Set<RelativePath>()
  for (const { path, position } of entries) {
    if (comparePositions(position, since) < 0) old.add(path)
    // All the way up: between two directories one may be missing, where a part of the tree is all that is known.
    else for (let holder = parentOf(path); holder !== undefined; holder = parentOf(holder)) old.delete(holder)
  }
  return old
}

function* renamed(from: RelativePath, to: RelativePath, before: Tree): Generator<Effect> {
  // A directory cannot become its own child, nor replace a parent; such a record changes nothing.
  if (isWithin(to, from) || isWithin(from, to)) return
  const moved = [...before.within(from)]
  if (moved.length === 0) return
  const arriving = new Set(moved.map((entry) => rebase(entry.path, from, to)))
  for (const { path } of moved) yield { kind: 'gone', path }
  for (const { path } of before.within(to)) if (!arriving.has(path)) yield { kind: 'gone', path }
  for (const { path, version } of moved) yield { kind: 'is', path: rebase(path, from, to), version }
}

/** A tree in memory. Small trees and tests; the catalog is the large one. */
export class MemoryTree implements Tree {
  readonly #children = new Map<RelativePath, Set<RelativePath>>()
  readonly #entries = new Map<RelativePath, TreeEntry>()

  get size(): number {
    return this.#entries.size
  }

  at(path: RelativePath): TreeEntry | undefined {
    return this.#entries.get(path)
  }

  *within(path: RelativePath): Generator<TreeEntry> {
    const entry = this.#entries.get(path)
    if (entry !== undefined) yield entry
    // NUL-joined order among siblings is plain order of their full paths: they share all but the name.
    const children = this.#children.get(path)
    if (children !== undefined) for (const child of [...children].sort()) yield* this.within(child)
  }

  /** Folds one record in. */
  apply(record: JournalRecord): Effect[] {
    const changes = [...effects(record, this)]
    const position = { epoch: record.epoch, seq: record.seq }
    for (const change of changes) {
      if (change.kind === 'is') this.set({ path: change.path, position, version: change.version })
      else this.#entries.delete(change.path)
    }
    return changes
  }

  set(entry: TreeEntry): void {
    this.#entries.set(entry.path, entry)
    for (let path = entry.path, parent = parentOf(path); parent !== undefined; path = parent, parent = parentOf(path)) {
      const siblings = this.#children.get(parent)
      if (siblings?.has(path) === true) return
      if (siblings === undefined) this.#children.set(parent, new Set([path]))
      else siblings.add(path)
    }
  }
}
