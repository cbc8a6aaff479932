/**
 * Takes a copy over from the collector that wrote it, so that whatever that one does from now on changes nothing.
 *
 * Order: the writer's name; then every file that could still grow is closed, first behind its last byte and then as a whole; then a
 * new file of each kind, closed as well, takes the number that the old writer would go on with. Invariant: when this returns, a
 * put of the old writer can only fail, for it writes files one after the other, and each of its next names is taken. It prevents two
 * histories in one place, with whichever of the two the old collector still has on its way.
 */
import { createSecretKey } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { PacsimileError } from '../shared/errors.ts'
import { COPIED_KINDS, type CopiedFile, type Copy, copiedSource, fenced, fileOf, nameOf, prefixOf, sourceOf } from './repository/copy.ts'
import type { FrameFileIdentity, FrameFileKind } from './repository/file-header.ts'
import { FrameFile } from './repository/frame-file.ts'

/** The old writer may be faster, but not for ever: it meets the fence with each thing that it writes. */
const ROUNDS_MAX = 50

/** The caller holds the lease. @throws fenced where the old writer cannot be stopped, io */
export async function closeOff(copy: Copy, repository: string, dataKey: Buffer): Promise<void> {
  for (const kind of COPIED_KINDS) await closeKind(copy, kind, (number) => emptyFile({ kind, repository, number }, dataKey))
}

async function closeKind(copy: Copy, kind: FrameFileKind, makeEmpty: (number: number) => Promise<Buffer>): Promise<void> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const files = (await Array.fromAsync(copy.list(prefixOf(kind)))).filter(({ name }) => fileOf(name) !== undefined)
    const numberOf = ({ name }: CopiedFile): number => fileOf(name)?.number ?? 0
    const growing = files.filter(({ isFinished }) => !isFinished)
    for (const file of growing) await tried(() => closeFile(copy, file, () => makeEmpty(numberOf(file))))
    if (growing.length > 0) continue
    const number = files.reduce((most, file) => Math.max(most, numberOf(file)), 0) + 1
    const next: CopiedFile = { name: nameOf(kind, number), bytes: 0, isFinished: false, isFenced: false, modifiedMs: 0 }
    if (await tried(() => closeFile(copy, next, () => makeEmpty(number)))) return
  }
  throw new PacsimileError('fenced', `The collector that writes ${copy.url} is at work still: stop it, and try again`)
}

async function closeFile(copy: Copy, { name, bytes }: CopiedFile, makeEmpty: () => Promise<Buffer>): Promise<void> {
  if (!(await copy.fence(name, bytes))) throw fenced(copy.url, `${name} is longer by now`)
  await copy.finish(name, bytes === 0 ? sourceOf(await makeEmpty()) : copiedSource(copy, name, bytes))
}

/** A sealed file without frames. */
async function emptyFile(identity: FrameFileIdentity, dataKey: Buffer): Promise<Buffer> {
  const directory = mkdtempSync(join(tmpdir(), 'pacsimile-'))
  const path = join(directory, basename(nameOf(identity.kind, identity.number)))
  try {
    const file = FrameFile.create(path, identity, createSecretKey(dataKey))
    try {
      await file.seal()
    } finally {
      file.close()
    }
    return readFileSync(path)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** False where the old writer was faster. */
async function tried(close: () => Promise<void>): Promise<boolean> {
  try {
    await close()
    return true
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'fenced') return false
    throw error
  }
}
