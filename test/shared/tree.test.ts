import { describe, expect, it } from 'vitest'
import { ROOT } from '../../shared/path.ts'
import { MemoryTree } from '../../shared/tree.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'

/** The paths of the tree after what `write` has written. */
function treeAfter(write: (writer: JournalWriter) => void): string[] {
  const writer = new JournalWriter()
  write(writer)
  const tree = new MemoryTree()
  for (const { record } of writer.written) tree.apply(record)
  return Array.from(tree.within(ROOT), (entry) => entry.path)
}

const some = (writer: JournalWriter): void => {
  writer.put('d', directoryVersion())
  writer.put('d/e', directoryVersion())
  writer.file('d/e/f', Buffer.from('f'))
  writer.file('d-', Buffer.from('sorts between d and d/e as a string, not as a walk'))
}

describe('the fold', () => {
  it('walks depth first with sorted names', () => {
    expect(treeAfter(some)).toEqual(['', 'd', 'd/e', 'd/e/f', 'd-'])
  })

  it.each<[string, (writer: JournalWriter) => void, string[]]>([
    ['a removed directory takes all below it along', (writer) => writer.remove('d'), ['', 'd-']],
    ['a file in the place of a directory ends what was in it', (writer) => writer.file('d', Buffer.alloc(0)), ['', 'd', 'd-']],
    ['a symlink in the place of a directory too', (writer) => writer.put('d', symlinkVersion('x')), ['', 'd', 'd-']],
    [
      'a directory put again keeps what is in it',
      (writer) => writer.put('d', directoryVersion({ mode: 0o700 })),
      ['', 'd', 'd/e', 'd/e/f', 'd-'],
    ],
    ['a rename moves all below', (writer) => writer.rename('d/e', 'g'), ['', 'd', 'd-', 'g', 'g/f']],
    ['a rename replaces what had the name', (writer) => writer.rename('d-', 'd'), ['', 'd']],
    ['a rename of nothing changes nothing', (writer) => writer.rename('nowhere', 'd'), ['', 'd', 'd/e', 'd/e/f', 'd-']],
    ['a rename into itself changes nothing', (writer) => writer.rename('d', 'd/e/d'), ['', 'd', 'd/e', 'd/e/f', 'd-']],
    ['a removal of nothing changes nothing', (writer) => writer.remove('nowhere'), ['', 'd', 'd/e', 'd/e/f', 'd-']],
    [
      'a gap changes nothing',
      (writer) => writer.append({ kind: 'gap', volume: VOLUME, from: writer.end.time, until: writer.end.time, cause: 'x' }),
      ['', 'd', 'd/e', 'd/e/f', 'd-'],
    ],
  ])('%s', (_, change, expected) => {
    expect(
      treeAfter((writer) => {
        some(writer)
        change(writer)
      }),
    ).toEqual(expected)
  })

  it('ends by a sweep what a full scan did not find, and spares the directories above what it found', () => {
    const left = treeAfter((writer) => {
      some(writer)
      const since = writer.end.seq + 1
      writer.file('d/e/f', Buffer.from('found'))
      writer.append({ kind: 'sweep', volume: VOLUME, since })
    })
    expect(left).toEqual(['', 'd', 'd/e', 'd/e/f'])
  })
})
