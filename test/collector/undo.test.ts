/** Taking a restore in place back, and giving up that it can be. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { forgetRestore } from '../../collector/undo.ts'
import { UndoPlace } from '../../collector/undo-place.ts'
import { archiveOf, restoreInto, studies, undo, write } from '../support/in-place-archive.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'

describe('an undo', () => {
  it('leaves alone what was changed since, and brings back the rest; --force keeps the change aside', async () => {
    const at = await archiveOf(studies)
    for (const name of ['a/1', 'a/2', 'a/3']) write(at.live, name, `newer ${name}`)
    rmSync(join(at.live, 'b'), { recursive: true })
    const { id } = (await restoreInto(at, at.live)).inPlace
    write(at.live, 'a/1', 'newest')
    rmSync(join(at.live, 'a/2'))
    write(at.live, 'b/more', 'made since')
    const first = await undo(at.live, id)
    expect(first.done).toBe(false)
    expect(first.troubles.map(({ path }) => path).sort()).toEqual(['a/1', 'a/2', 'b'])
    expect(readFileSync(join(at.live, 'a/1'), 'utf8')).toBe('newest')
    expect(readFileSync(join(at.live, 'a/3'), 'utf8')).toBe('newer a/3')
    expect(readdirSync(join(at.live, 'b'))).toEqual(['more'])

    expect(await undo(at.live, id, true)).toMatchObject({ done: true, troubles: [] })
    for (const name of ['a/1', 'a/2', 'a/3']) expect(readFileSync(join(at.live, name), 'utf8')).toBe(`newer ${name}`)
    expect(existsSync(join(at.live, 'b'))).toBe(false)
    const [place] = UndoPlace.in(at.live).places
    expect(place?.note.state).toBe('undone-but')
    const aside = [...walkTree(place?.directory ?? '').keys()].filter((path) => path.endsWith('/more'))
    expect(aside, 'what was made since').toHaveLength(1)
    await forgetRestore(at.live, id ?? '')
    expect(readdirSync(at.live)).toEqual(['a'])
  })

  it('can be given up, and then leaves what was restored', async () => {
    const at = await archiveOf(studies)
    write(at.live, 'a/1', 'newer')
    const { id } = (await restoreInto(at, at.live)).inPlace
    await forgetRestore(at.live, id ?? '')
    expect(differences(at.truth, walkTree(at.live))).toEqual([])
    await expect(undo(at.live, id)).rejects.toMatchObject({ code: 'not-found' })
  })
})
