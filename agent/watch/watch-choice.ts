/**
 * What an administrator may choose to watch with.
 *
 * It stands alone so that reading a configuration loads no native code. Invariant: these names are the ones of `agent.toml`
 * and of `--watch`. It prevents the two from accepting different words.
 */
export const WATCH_CHOICES = ['auto', 'fanotify', 'chokidar'] as const
export type WatchChoice = (typeof WATCH_CHOICES)[number]
