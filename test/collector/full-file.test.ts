import { createSecretKey, randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { nameOf } from '../../collector/repository/copy.ts'
import { packPayload } from '../../collector/repository/frame.ts'
import { FrameFile } from '../../collector/repository/frame-file.ts'
import { DEFAULT_PARITY } from '../../collector/repository/parity.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import { SEGMENT_BYTES_TARGET } from '../../shared/limits.ts'
import { scratchDirectory } from '../support/scratch.ts'

const DATA_KEY = randomBytes(32)
const KEY = createSecretKey(DATA_KEY)
const IDENTITY = { kind: 'segment', repository: '00'.repeat(16), number: 1 } as const

describe('a full file of a repository', () => {
  /** A full segment, behind which another one was begun. */
  async function begun(): Promise<{ directory: string; path: string; regionBytes: number }> {
    const directory = join(scratchDirectory(), 'repository')
    Repository.create(directory, { id: IDENTITY.repository, chunkSizes: DEFAULT_CHUNK_SIZES })
    const [path = '', next = ''] = [1, 2].map((number) => join(directory, nameOf('segment', number)))
    for (const file of [path, next]) mkdirSync(dirname(file))
    const full = FrameFile.create(path, IDENTITY, KEY)
    while (full.size < SEGMENT_BYTES_TARGET) full.append('records', packPayload(randomBytes(4 << 20)))
    await full.sync()
    FrameFile.create(next, { ...IDENTITY, number: 2 }, KEY).close()
    full.close()
    return { directory, path, regionBytes: full.size }
  }

  async function opened(directory: string): Promise<void> {
    const repository = Repository.openForAppending(directory, DATA_KEY, undefined, { parity: DEFAULT_PARITY })
    await repository.sealed()
    repository.close()
  }

  function isSealed(path: string): boolean {
    const file = FrameFile.open(path, IDENTITY, KEY)
    try {
      return file.sealedIndex() !== undefined && (statSync(path).mode & 0o777) === 0o400
    } finally {
      file.close()
    }
  }

  it('is sealed at the next start, wherever its sealing was cut short, also where another one was begun behind it', async () => {
    const { directory, path, regionBytes } = await begun()
    await opened(directory)
    expect(isSealed(path)).toBe(true)
    const whole = readFileSync(path)
    expect(whole.length).toBeGreaterThan(regionBytes)
    // As sealing writes: parity, index, footer; and then its mode.
    for (const length of [regionBytes + 100, regionBytes + 500_000, whole.length - 50, whole.length - 10, whole.length]) {
      chmodSync(path, 0o600)
      writeFileSync(path, whole.subarray(0, length))
      await opened(directory)
      expect(isSealed(path), `cut to ${length} of ${whole.length} bytes`).toBe(true)
      expect(readFileSync(path).subarray(0, regionBytes).equals(whole.subarray(0, regionBytes))).toBe(true)
    }
  })

  it('is left as it is where what was committed is damaged', async () => {
    const { directory, path, regionBytes } = await begun()
    const bytes = readFileSync(path)
    bytes[regionBytes - 100] = (bytes[regionBytes - 100] ?? 0) ^ 1
    writeFileSync(path, bytes)
    await opened(directory)
    expect(isSealed(path)).toBe(false)
    expect(readFileSync(path).equals(bytes)).toBe(true)
  })
})
