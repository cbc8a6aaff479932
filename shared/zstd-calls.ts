/**
 * zstd as Node.js itself holds it, called for a whole piece at once, through koffi. node:zlib makes a stream for each piece, which costs more than
 * to compress or decompress a small one, and writes into memory of its own.
 *
 * Invariant: nothing is written beyond the memory that was given. It prevents a few bytes from a hostile peer from becoming gigabytes.
 * A Node.js that does not show its zstd to libraries has none: then `zstd` gives undefined, and node:zlib does it.
 */
import { createRequire } from 'node:module'
import type Koffi from 'koffi'
import { PacsimileError } from './errors.ts'

export interface Zstd {
  /** Writes `plain`, compressed, to the beginning of `to`, which holds `compressedBound` of it, and says how long that is. @throws internal */
  compress(plain: Uint8Array, to: Uint8Array, level: number): number
  /** Writes what `compressed` holds to the beginning of `to` and says how long it is; undefined where it is no zstd, is cut off, or has no room. */
  decompress(compressed: Uint8Array, to: Uint8Array): number | undefined
}

function open(): Zstd | undefined {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi
    const library = koffi.load(null)
    const create = library.func('void *ZSTD_createDCtx()')
    const free = library.func('size_t ZSTD_freeDCtx(void *context)')
    const decompress = library.func('size_t ZSTD_decompressDCtx(void *context, void *to, size_t room, const void *from, size_t length)')
    const createCompressing = library.func('void *ZSTD_createCCtx()')
    const freeCompressing = library.func('size_t ZSTD_freeCCtx(void *context)')
    const compress = library.func(
      'size_t ZSTD_compressCCtx(void *context, void *to, size_t room, const void *from, size_t length, int level)',
    )
    let compressing: unknown
    let context: unknown
    return {
      compress(plain, to, level) {
        if (compressing === undefined) {
          compressing = createCompressing()
          process.once('exit', () => freeCompressing(compressing))
        }
        const length = Number(compress(compressing, to, to.length, plain, plain.length, level))
        if (length > to.length) throw new PacsimileError('internal', `zstd does not compress ${plain.length} bytes into ${to.length}`)
        return length
      },
      decompress(compressed, to) {
        if (context === undefined) {
          context = create()
          // Of a thread too: what it has taken is not given back with its heap.
          process.once('exit', () => free(context))
        }
        const length = Number(decompress(context, to, to.length, compressed, compressed.length))
        // An error is a number beyond every length.
        return length <= to.length ? length : undefined
      },
    }
  } catch {
    // Whoever asks has another way.
    return undefined
  }
}

/** As much room as compressed content may need (ZSTD_COMPRESSBOUND, zstd.h). */
export function compressedBound(length: number): number {
  const small = 128 << 10
  return length + (length >>> 8) + (length < small ? (small - length) >>> 11 : 0)
}

let opened: { readonly zstd: Zstd | undefined } | undefined

/** Opened when it is first asked for: many programs read nothing that is compressed, and a library more takes a while. */
export function zstd(): Zstd | undefined {
  opened ??= { zstd: open() }
  return opened.zstd
}
