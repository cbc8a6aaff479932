import { expect, it } from 'vitest'
import type { FileTask } from '../../collector/restore-files.ts'
import { decodeTasks, encodeTasks } from '../../collector/restore-tasks.ts'
import { relativePath } from '../../shared/path.ts'
import { withAdditions } from '../../shared/version-extensions.ts'
import { fileVersion, path } from '../support/agent-parts.ts'

it('files that a thread is to write arrive as they were sent', () => {
  const holes = [{ offset: 0, length: 4096 }]
  const tasks: FileTask[] = [
    { path: path('a/b'), at: path('a/b'), version: fileVersion('x', { mtimeNs: 1_700_000_000_123_456_789n, mode: 0o6755 }) },
    // Not UTF-8, to another place, with all that a version can have.
    {
      path: relativePath('caf\xe9/\xff'),
      at: relativePath('\xff'),
      version: withAdditions(fileVersion(['ab', 'c'], { xattrs: [{ name: 'user.a', value: '\0\xff' }], links: 3 }), { holes }),
    },
    { path: path('empty'), at: path('empty'), version: fileVersion('') },
  ]
  expect(decodeTasks(encodeTasks(tasks))).toEqual(tasks)
  expect(decodeTasks(encodeTasks([]))).toEqual([])
})
