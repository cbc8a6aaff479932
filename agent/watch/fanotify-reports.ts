/**
 * What the main thread and the thread that reads fanotify say to each other.
 *
 * Invariant: reports come in the order in which things were read, and a fence's answer after everything that it stands
 * for. It prevents an answer that overtakes the events it vouches for.
 */
import type { ByteString } from '../../shared/bytes.ts'
import type { RelativePath } from '../../shared/path.ts'
import type { Writer } from '../../shared/version-extensions.ts'
import type { Mount } from './directory-paths.ts'
import type { WatchedVolume } from './event-places.ts'
import type { Verified } from './hint-log.ts'
import type { WatchEvent } from './watcher.ts'

export interface FanotifyThreadData {
  /** The name group, the pin group, an eventfd that announces orders, the hint log. */
  readonly names: number
  readonly pins: number
  readonly wakeup: number
  readonly hints: number
  /** An Int32 for each version that may be open: 1 while it is; one more: 1 when the thread waits for one to be closed. */
  readonly slots: SharedArrayBuffer
  readonly ownPid: number
  /** Volumes that the life before watched: until they are watched again, or it is clear that they are not, their versions wait. */
  readonly expected: readonly string[]
}

export type FanotifyOrder =
  | {
      readonly kind: 'watch'
      readonly volume: WatchedVolume
      readonly filesystem: ByteString
      readonly mount: Mount
      readonly isContinuous: boolean
    }
  | { readonly kind: 'forget'; readonly volume: string }
  | { readonly kind: 'verified'; readonly volumes: Verified }
  | { readonly kind: 'settled'; readonly mark: number }
  | { readonly kind: 'fence'; readonly id: number }
  | { readonly kind: 'end' }

export interface PinnedVersion {
  readonly volume: string
  readonly path: RelativePath
  readonly fd: number
  readonly slot: number
  readonly writer: Writer | undefined
}

export type FanotifyReport =
  | { readonly kind: 'watching'; readonly volume: string }
  /** Its directory's descriptor is not used any more. */
  | { readonly kind: 'forgotten'; readonly volume: string }
  | {
      readonly kind: 'events'
      readonly volumes: readonly (readonly [volume: string, events: readonly WatchEvent[]])[]
      readonly pins: readonly PinnedVersion[]
      /** The place in the hint log behind these events. */
      readonly head: number
      /** Names, and inodes, that this process closed after writing. */
      readonly own: readonly ByteString[]
      readonly ownPins: readonly bigint[]
    }
  | { readonly kind: 'fenced'; readonly id: number; readonly isBehind: boolean; readonly closedBeforeNs: bigint }
