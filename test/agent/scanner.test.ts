import { describe, expect, it } from 'vitest'
import type { Pursuit } from '../../agent/pursuit.ts'
import { type Rename, Renames } from '../../agent/renames.ts'
import { Rescans } from '../../agent/rescans.ts'
import { RottenFiles } from '../../agent/rotten-files.ts'
import type { ScanNews, ScanThread } from '../../agent/scan-threads.ts'
import { Scanner } from '../../agent/scanner.ts'
import { Settle } from '../../agent/settle.ts'
import type { State } from '../../agent/state.ts'
import { Suspects } from '../../agent/suspects.ts'
import { Volume } from '../../agent/volume.ts'
import { IgnoreRules } from '../../agent/watch/ignore.ts'
import type { Watcher } from '../../agent/watch/watcher.ts'
import { path, VOLUME } from '../support/agent-parts.ts'

/** A scan of a place that finds nothing; the watcher tells of renames only when it is asked whether that was all. @returns them */
async function scan(place: string, moves: readonly (readonly [string, string])[]): Promise<Rename[]> {
  const renames = new Renames()
  const told: Rename[] = []
  const volume = new Volume(VOLUME, '/nowhere', new IgnoreRules({ paths: [], patterns: [] }), new RottenFiles('/nowhere/rotten.json'))
  volume.begin({ directory: '/nowhere', device: 1n, inode: 1n }, () => {})
  const fence: Watcher['fence'] = () => {
    for (const [from, to] of moves) told.push(renames.add(VOLUME, path(from), path(to)))
    return Promise.resolve({ isBehind: false, closedBeforeNs: 0n })
  }
  volume.watcher = { fence } as Watcher
  const thread = { async *run(): AsyncGenerator<ScanNews> {} } as unknown as ScanThread
  const unused = { pursuit: {} as Pursuit, state: { directory: '' } as State }
  const scanner = new Scanner({ settle: new Settle(() => {}), suspects: new Suspects(), rescans: new Rescans(), renames, ...unused })
  await scanner.scan(volume, { path: path(place), isShallow: false, origin: 'event' }, thread, new AbortController().signal)
  return told
}

describe('a scan', () => {
  it('leaves in doubt what was moved away before it may have come to it, as is told at its end', async () => {
    const told = await scan('a/b', [
      ['a/b/c', 'd'],
      ['a/b', 'e'],
      ['a', 'f'],
    ])
    expect(told.map(({ isDoubted }) => isDoubted)).toEqual([true, true, true])
  })

  it('does not doubt what came to where it looked, nor what was moved elsewhere', async () => {
    const told = await scan('a/b', [
      ['c', 'a/b/c'],
      ['a/d', 'a/e'],
    ])
    expect(told.map(({ isDoubted }) => isDoubted)).toEqual([false, false])
  })
})
