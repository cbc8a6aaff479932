/**
 * Filesystems of a test: made when it asks, gone when it ends.
 *
 * A test that needs one is skipped without root, aloud; where CI is set that is a failure. It prevents a machine from running
 * out of loop devices because a test failed.
 */
import { onTestFinished } from 'vitest'
import { type FilesystemKind, ImageFilesystem } from './image-filesystem.ts'
import { scratchDirectory } from './scratch.ts'

export function makeFilesystem(kind: FilesystemKind, bytes: number): ImageFilesystem {
  const filesystem = ImageFilesystem.make(kind, bytes, scratchDirectory())
  onTestFinished(() => filesystem.unmount())
  return filesystem
}
