/**
 * A full file of which the sealing was cut short, by a crash or a disk that failed: what of it is to be sealed still.
 *
 * Invariant: what a commit has written there stays as it is, and where any of that is damaged, all of the file does. It prevents a file that
 * lives for years without the parity that all the others have, because the collector was killed while another one was filled.
 */
import type { KeyObject } from 'node:crypto'
import { closeSync, fchmodSync, fsyncSync, openSync } from 'node:fs'
import { PacsimileError } from '../../shared/errors.ts'
import type { FrameFileIdentity } from './file-header.ts'
import { FrameFile } from './frame-file.ts'

/** @returns the file, to be sealed; undefined where that cannot be, or is done by now @throws io */
export function reopenFull(path: string, identity: FrameFileIdentity, dataKey: KeyObject): FrameFile | undefined {
  try {
    if (!isIndexed(path, identity, dataKey)) return FrameFile.reopen(path, identity, dataKey, 'all')
    // It ended between its last byte and its mode.
    makeFinal(path)
  } catch (error) {
    // Its very header is damaged: `check` reports it, `scrub` repairs it.
    if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
  }
  return undefined
}

function isIndexed(path: string, identity: FrameFileIdentity, dataKey: KeyObject): boolean {
  const file = FrameFile.open(path, identity, dataKey)
  try {
    return file.sealedIndex() !== undefined
  } finally {
    file.close()
  }
}

function makeFinal(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fchmodSync(fd, 0o400)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
