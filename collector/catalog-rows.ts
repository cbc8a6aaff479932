/**
 * Rows of a catalog in the order of their keys: what a walk over its versions needs of it.
 *
 * Invariant: a failure of LevelDB's is an error that says so, and none is met by nobody. It prevents a listing that ends early because a table could not be read.
 */
import { levelError } from './catalog-error.ts'
import type { KeyRange } from './catalog-keys.ts'

/** A key and its value. */
export type Row = readonly [Buffer, Buffer]

/** A key, and its value where it was read with it. */
export type FoundRow = readonly [Buffer, Buffer | undefined]

export interface CursorOptions {
  readonly reverse?: boolean
  readonly limit?: number
  /** Rows read at once, where nothing else is said. */
  readonly batch?: number
  /** Bytes after which no more rows are read at once. */
  readonly readBytes?: number
}

export interface Cursor<Each = Row> {
  /** Some of the rows that follow; none at the end. @throws io */
  next(count?: number): Promise<readonly Each[]>
  /** Goes on with that key, or the first behind it. */
  seek(key: Buffer): void
  close(): Promise<void>
}

export interface Rows {
  entries(range: KeyRange, options?: CursorOptions): AsyncGenerator<Row>
  cursor(range: KeyRange, options?: CursorOptions): Cursor
  /** Of keys alone. */
  keyCursor(range: KeyRange, options?: CursorOptions): Cursor<FoundRow>
  /** Of each key; undefined where there is none. @throws io */
  values(keys: readonly Buffer[]): Promise<readonly (Buffer | undefined)[]>
}

/** As LevelDB's binding has it. */
interface LevelIterator<Each> {
  nextv(size: number): Promise<Each[]>
  seek(key: Buffer): void
  close(): Promise<void>
}

/** `batch`: rows read at once, where nothing else is said. */
export function cursorOver<Each>(iterator: LevelIterator<Each>, batch: number): Cursor<Each> {
  return {
    next: (count = batch) => readOrFail(iterator.nextv(count)),
    seek: (key) => iterator.seek(key),
    close: () => iterator.close(),
  }
}

/** @throws io */
export async function readOrFail<Found>(reading: Promise<Found>): Promise<Found> {
  try {
    return await reading
  } catch (error) {
    throw levelError(error, 'Reading the catalog')
  }
}
