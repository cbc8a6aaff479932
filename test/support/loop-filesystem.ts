/** Where a small filesystem of the kind a test asks for is mounted, until the test ends; takes root. */
import { makeFilesystem } from './filesystem.ts'
import type { FilesystemKind } from './image-filesystem.ts'

/** The smallest that mkfs.xfs makes; the image is sparse. */
const IMAGE_BYTES = 320 << 20

export function loopFilesystem(kind: FilesystemKind): string {
  return makeFilesystem(kind, IMAGE_BYTES).at
}
