import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Spool } from '../../agent/spool.ts'
import { silentLog } from '../../shared/log.ts'
import { chunkOf } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

const QUOTA = 1 << 20

function openSpool(directory: string, quotaBytes = QUOTA): Spool {
  const spool = Spool.open(directory, quotaBytes, silentLog)
  onTestFinished(() => spool.close())
  return spool
}

const CONTENTS = ['first', 'second content', 'third, and last']

async function append(spool: Spool, contents: readonly string[]): Promise<boolean[]> {
  return Promise.all(contents.map(chunkOf).map(({ digest, chunk }) => spool.append(digest, chunk)))
}

async function held(spool: Spool, contents: readonly string[]): Promise<string[]> {
  const chunks = await Promise.all(contents.map((content) => spool.read(chunkOf(content).digest)))
  return chunks.flatMap((chunk) => (chunk === undefined ? [] : [Buffer.from(chunk.bytes).toString()]))
}

describe('the spool', () => {
  it('gives back what was appended, also after it was opened again', async () => {
    const directory = scratchDirectory()
    const spool = openSpool(directory)
    expect(await append(spool, CONTENTS)).toEqual([true, true, true])
    expect(await held(spool, CONTENTS)).toEqual(CONTENTS)
    await spool.close()
    expect(await held(openSpool(directory), CONTENTS)).toEqual(CONTENTS)
  })

  it('keeps the form of what was appended', async () => {
    const directory = scratchDirectory()
    const spool = openSpool(directory)
    const forms = [false, true].flatMap((filtered) => [false, true].map((compressed) => ({ filtered, compressed })))
    const chunks = forms.map((form, i) => ({ digest: chunkOf(`${i}`).digest, chunk: { ...chunkOf(`stored ${i}`).chunk, ...form } }))
    for (const { digest, chunk } of chunks) await spool.append(digest, chunk)
    await spool.close()
    const again = openSpool(directory)
    for (const { digest, chunk } of chunks) expect(await again.read(digest)).toEqual(chunk)
  })

  it('holds whole chunks only, wherever a crash cut its last file', async () => {
    const directory = scratchDirectory()
    const spool = openSpool(directory)
    await append(spool, CONTENTS)
    await spool.close()
    const [name = ''] = readdirSync(directory)
    const whole = readFileSync(join(directory, name))
    let before = CONTENTS.length
    for (let length = whole.length; length >= 0; length--) {
      writeFileSync(join(directory, name), whole)
      truncateSync(join(directory, name), length)
      const image = Spool.open(directory, QUOTA, silentLog)
      const contents = await held(image, CONTENTS)
      await image.close()
      expect(contents).toEqual(CONTENTS.slice(0, contents.length))
      expect(contents.length).toBeLessThanOrEqual(before)
      before = contents.length
      if (contents.length === 0) break
    }
    expect(before).toBe(0)
  })

  it('does not give back what is not what was written', async () => {
    const directory = scratchDirectory()
    const spool = openSpool(directory)
    await append(spool, CONTENTS)
    await spool.close()
    const [name = ''] = readdirSync(directory)
    const bytes = readFileSync(join(directory, name))
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
    writeFileSync(join(directory, name), bytes)
    expect(await held(openSpool(directory), CONTENTS)).toEqual(CONTENTS.slice(0, 2))
  })

  it('deletes its files when nothing in them is needed', async () => {
    const directory = scratchDirectory()
    const spool = openSpool(directory)
    await append(spool, CONTENTS)
    for (const content of CONTENTS) await spool.drop(chunkOf(content).digest)
    expect(readdirSync(directory)).toEqual([])
    expect(spool.bytes).toBe(0)
    expect(await append(spool, ['again'])).toEqual([true])
  })

  it('refuses what does not fit its quota, and takes more when there is room again', async () => {
    const spool = openSpool(scratchDirectory(), 2000)
    const [large, small] = ['x'.repeat(1500), 'y'.repeat(1000)]
    expect(await append(spool, [large])).toEqual([true])
    expect(await append(spool, [small])).toEqual([false])
    expect(spool.isFull).toBe(true)
    await spool.drop(chunkOf(large).digest)
    expect(spool.isFull).toBe(false)
    expect(await append(spool, [small])).toEqual([true])
  })
})
