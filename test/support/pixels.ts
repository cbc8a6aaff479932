/** Pixels as a scanner gives them: 12 bits in 16, smooth, with noise; the same every time. */
export function noisySlope(columns: number, rows: number): Buffer {
  const bytes = Buffer.alloc(2 * columns * rows)
  let random = 1
  for (let i = 0; i < columns * rows; i++) {
    random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0
    const [x, y] = [i % columns, Math.floor(i / columns)]
    const value = 1200 + 300 * Math.sin(x / 40) + 200 * Math.cos(y / 30) + ((random >>> 16) % 48)
    bytes.writeUInt16LE(Math.round(value), 2 * i)
  }
  return bytes
}
