/**
 * Reed-Solomon erasure code over GF(2^8): from any `dataBlocks` of the blocks of a stripe all of them are made again. Pure.
 *
 * Systematic, with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d) and a Vandermonde matrix that is multiplied by the inverse of
 * its upper square, so that the upper rows become the identity: every square of rows can be inverted (J. S. Plank, Y. Ding,
 * "Note: Correction to the 1997 Tutorial on Reed-Solomon Coding", 2003). Which blocks are damaged is for the caller to know.
 */

const POLYNOMIAL = 0x11d
const FIELD = 256
/** Rows of a Vandermonde matrix differ up to here. */
export const STRIPE_BLOCKS_MAX = FIELD

const EXP = new Uint8Array(2 * FIELD)
const LOG = new Uint8Array(FIELD)
for (let power = 0, value = 1; power < FIELD - 1; power++) {
  EXP[power] = value
  EXP[power + FIELD - 1] = value
  LOG[value] = power
  value <<= 1
  if (value >= FIELD) value ^= POLYNOMIAL
}

function multiply(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : (EXP[(LOG[a] ?? 0) + (LOG[b] ?? 0)] ?? 0)
}

function invert(a: number): number {
  if (a === 0) throw new RangeError('zero has no inverse')
  return EXP[FIELD - 1 - (LOG[a] ?? 0)] ?? 0
}

function power(base: number, exponent: number): number {
  if (exponent === 0) return 1
  return base === 0 ? 0 : (EXP[((LOG[base] ?? 0) * exponent) % (FIELD - 1)] ?? 0)
}

type Row = Uint8Array
type Matrix = readonly Row[]

function product(a: Matrix, b: Matrix): Row[] {
  return a.map((row) =>
    Uint8Array.from(b[0] ?? [], (_, column) => row.reduce((sum, value, i) => sum ^ multiply(value, b[i]?.[column] ?? 0), 0)),
  )
}

/** By elimination (Gauss, Jordan). @throws RangeError when it has none */
function inverseOf(matrix: Matrix): Row[] {
  const size = matrix.length
  // Beside the matrix, what becomes its inverse.
  const rows = matrix.map((row, i) => Uint8Array.from({ length: 2 * size }, (_, j) => (j < size ? (row[j] ?? 0) : Number(j - size === i))))
  for (let column = 0; column < size; column++) {
    const pivot = rows.findIndex((row, i) => i >= column && row[column] !== 0)
    const found = rows[pivot]
    const displaced = rows[column]
    if (found === undefined || displaced === undefined) throw new RangeError('the matrix has no inverse')
    rows[pivot] = displaced
    rows[column] = found
    const scale = invert(found[column] ?? 0)
    for (const [i, value] of found.entries()) found[i] = multiply(value, scale)
    for (const row of rows) {
      const factor = row[column] ?? 0
      if (row === found || factor === 0) continue
      for (const [i, value] of found.entries()) row[i] = (row[i] ?? 0) ^ multiply(factor, value)
    }
  }
  return rows.map((row) => row.slice(size))
}

/** Adds `source`, times a factor, to `target`; both of one length. */
function addScaled(target: Uint8Array, source: Uint8Array, factor: number): void {
  if (factor === 0) return
  const products = Uint8Array.from({ length: FIELD }, (_, value) => multiply(factor, value))
  for (let i = 0; i < target.length; i++) target[i] = (target[i] as number) ^ (products[source[i] as number] as number)
}

export class ReedSolomon {
  readonly dataBlocks: number
  readonly parityBlocks: number
  readonly #matrix: Matrix

  constructor(dataBlocks: number, parityBlocks: number) {
    const blocks = dataBlocks + parityBlocks
    if (dataBlocks < 1 || parityBlocks < 1 || blocks > STRIPE_BLOCKS_MAX)
      throw new RangeError(`a stripe has 2 to ${STRIPE_BLOCKS_MAX} blocks, not ${dataBlocks} and ${parityBlocks}`)
    this.dataBlocks = dataBlocks
    this.parityBlocks = parityBlocks
    const vandermonde = Array.from({ length: blocks }, (_, row) =>
      Uint8Array.from({ length: dataBlocks }, (_value, column) => power(row, column)),
    )
    this.#matrix = product(vandermonde, inverseOf(vandermonde.slice(0, dataBlocks)))
  }

  /** The parity of a stripe. `data`: all of its data blocks, of one length. */
  encode(data: readonly Uint8Array[]): Uint8Array[] {
    return this.#matrix.slice(this.dataBlocks).map((row) => this.#combine(row, data))
  }

  /**
   * The data blocks of a stripe, of which at most `parityBlocks` are undefined: first the data, then the parity, of one length.
   * Undefined when too few are left.
   */
  reconstruct(blocks: readonly (Uint8Array | undefined)[]): Uint8Array[] | undefined {
    const left = blocks.flatMap((block, i) => (block === undefined ? [] : [{ block, row: this.#matrix[i] ?? new Uint8Array() }]))
    const used = left.slice(0, this.dataBlocks)
    if (used.length < this.dataBlocks) return undefined
    const inverse = inverseOf(used.map(({ row }) => row))
    const sources = used.map(({ block }) => block)
    return inverse.map((row, i) => blocks[i] ?? this.#combine(row, sources))
  }

  #combine(row: Row, sources: readonly Uint8Array[]): Uint8Array {
    const sum = new Uint8Array(sources[0]?.length ?? 0)
    for (const [i, source] of sources.entries()) addScaled(sum, source, row[i] ?? 0)
    return sum
  }
}
