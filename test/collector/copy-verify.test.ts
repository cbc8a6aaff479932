import { createSecretKey } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Holding } from '../../collector/copy-inventory.ts'
import { CopyVerifier } from '../../collector/copy-verify.ts'
import { nameOf } from '../../collector/repository/copy.ts'
import { FsCopy } from '../../collector/repository/copy-fs.ts'
import { FrameFile } from '../../collector/repository/frame-file.ts'
import { LocalFile } from '../../collector/repository/local-file.ts'
import { DEFAULT_PARITY } from '../../collector/repository/parity.ts'
import { ScrubThread } from '../../collector/scrub-thread.ts'
import { beginFsCopy } from '../support/copied-store.ts'
import { JournalWriter } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { Random } from '../support/workload.ts'

const never = new AbortController().signal
const PACK = nameOf('pack', 1)

interface Verified {
  readonly store: Store
  readonly copy: FsCopy
  readonly own: LocalFile
  readonly holdings: Map<string, Holding>
  readonly redone: string[]
  readonly found: () => Promise<string[]>
  readonly verifier: CopyVerifier
}

/** A pack of 300,000 bytes, and a copy that is begun and has nothing of it. */
async function prepare(): Promise<Verified> {
  const store = await Store.open()
  const writer = new JournalWriter()
  writer.file('a.dcm', new Random(1).bytes(300_000), {}, 50_000)
  await store.send(writer)
  const directory = join(scratchDirectory(), 'copy')
  const lease = await beginFsCopy(store, directory)
  const copy = await FsCopy.open(directory)
  const thread = new ScrubThread(store.dataKey, { parity: DEFAULT_PARITY, bytesPerSecond: Number.POSITIVE_INFINITY })
  const own = await LocalFile.open(store.repository.pathOf('pack', 1))
  onTestFinished(async () => {
    await own[Symbol.asyncDispose]()
    await thread[Symbol.asyncDispose]()
    await copy[Symbol.asyncDispose]()
  })
  const holdings = new Map<string, Holding>()
  const redone: string[] = []
  const verifier = new CopyVerifier(copy, {
    name: 'copy',
    repository: {
      id: store.repository.id,
      directory: store.repositoryDirectory,
      numbers: (kind) => store.repository.numbers(kind),
      pathOf: (kind, number) => store.repository.pathOf(kind, number),
      // As if it were full.
      extentOf: (kind, number) => ({ bytes: store.repository.sizeOf(kind, number), state: 'sealed' }),
    },
    committed: store.catalog.reflected(),
    dataKey: store.dataKey,
    thread,
    writer: lease,
    scratch: scratchDirectory(),
    isDamaged: () => false,
    copier: {
      redo: (kind, number) => redone.push(nameOf(kind, number)),
      holding: (kind, number) => holdings.get(nameOf(kind, number)),
    },
  })
  const found = async (): Promise<string[]> =>
    (await verifier.verify(true, never)).findings.map(({ file, kind, isRepaired }) => `${kind} ${file} ${isRepaired}`)
  return { store, copy, own, holdings, redone, found, verifier }
}

/** A file goes, once, between the look at it and its reading; what is to happen before the next look is answered. */
function goesOnceWhenRead(copy: FsCopy, then: (path: string, bytes: Buffer) => void): void {
  const [localPath, list] = [copy.localPath.bind(copy), copy.list.bind(copy)]
  let isOver = false
  let next = (): void => {}
  copy.localPath = (name) => {
    const path = localPath(name)
    if (isOver) return path
    isOver = true
    const bytes = readFileSync(path)
    rmSync(path)
    next = () => then(path, bytes)
    return path
  }
  copy.list = (prefix, signal) => {
    next()
    next = () => {}
    return list(prefix, signal)
  }
}

describe('a verification beside a copier', () => {
  it('calls nothing missing or damaged that is still on its way, and all that is known to have been there', async () => {
    const { store, copy, own, holdings, redone, found, verifier } = await prepare()
    const renewed: string[] = []
    Object.assign(copy, { renew: async (name: string) => void renewed.push(name) })

    expect(await found()).toEqual([])
    // Half of it, and something that is being written behind.
    await copy.append(PACK, 0, await own.read(0, 100_000))
    holdings.set(PACK, { bytes: 100_000, isFinished: false })
    await copy.append(PACK, 100_000, Buffer.alloc(1000, 0x55))
    expect(await found()).toEqual([])
    expect(redone).toEqual([])
    // The same, known to have been durable.
    holdings.set(PACK, { bytes: 101_000, isFinished: false })
    expect(await found()).toEqual([`damaged ${PACK} true`])
    await copy.remove(PACK)
    expect(await found()).toEqual([`missing ${PACK} true`])
    expect(redone).toEqual([PACK, PACK])

    // Only what is finished and whole is worth keeping for longer.
    expect(renewed).toEqual([])
    const identity = { kind: 'pack', repository: store.repository.id, number: 1 } as const
    const file = FrameFile.reopen(store.repository.pathOf('pack', 1), identity, createSecretKey(store.dataKey), 'all')
    await file?.seal()
    await using sealed = await LocalFile.open(store.repository.pathOf('pack', 1))
    await copy.finish(PACK, sealed)
    holdings.set(PACK, { bytes: sealed.bytes, isFinished: true })
    expect(await found()).toEqual([])
    expect(renewed).toEqual([PACK])
    await verifier.verify(false, never)
    expect(renewed).toEqual([PACK])
  })
  it('looks again at a file that is written anew, or goes, while it is read', async () => {
    const { copy, own, holdings, found } = await prepare()
    await copy.append(PACK, 0, await own.read(0, own.bytes))
    holdings.set(PACK, { bytes: own.bytes, isFinished: false })
    goesOnceWhenRead(copy, (path, bytes) => writeFileSync(path, bytes))
    expect(await found()).toEqual([])
    goesOnceWhenRead(copy, () => {})
    expect(await found()).toEqual([`missing ${PACK} true`])
  })

  it('fails where a file is there and cannot be read', async () => {
    const { copy, own, holdings, found } = await prepare()
    await copy.append(PACK, 0, await own.read(0, own.bytes))
    holdings.set(PACK, { bytes: own.bytes, isFinished: false })
    copy.localPath = (name) => join(scratchDirectory(), name)
    await expect(found()).rejects.toThrow(/ENOENT/)
  })
})
