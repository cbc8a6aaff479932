/** A restore in place, or its undo, that is cut short at any of its steps. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { forgetRestore } from '../../collector/undo.ts'
import { UndoPlace } from '../../collector/undo-place.ts'
import { libc } from '../../shared/libc.ts'
import { archiveOf, copyOf, cutAt, restoreInto, spoil, studies, undo, write } from '../support/in-place-archive.ts'
import { archiveTree, walkTree } from '../support/tree-walk.ts'
import { type Copy, differences } from '../support/truth.ts'

const CHANGED_AGAIN = ['newest', 'put there', 'made again', 'in another directory']

/** What was restored over `spoil`, in each way in which that can be. */
function changeAgain(live: string): void {
  write(live, 'a/1', 'newest')
  rmSync(join(live, 'a/2'))
  write(live, 'a/new', 'made again')
  write(live, 'b/since', 'put there')
  mkdirSync(join(live, 'c'))
  write(live, 'c/d', 'in another directory')
  chmodSync(join(live, 'a/3'), 0o640)
}

/** The root's time is that of the undo place, where that stays. */
function namesOf(tree: Copy): Copy {
  return new Map([...tree].filter(([path]) => path !== ''))
}

function filesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true }).flatMap((entry) =>
    entry.isFile() ? [readFileSync(join(entry.parentPath, entry.name), 'utf8')] : [],
  )
}

describe('a restore in place that is cut short', () => {
  it('at any of its renames goes on, or goes back', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = walkTree(at.live)
    for (let limit = 1; ; limit++) {
      const live = copyOf(at.live)
      const cut = cutAt(limit)
      const whole = await restoreInto(at, live).then(
        () => true,
        () => false,
      )
      cut.mend()
      if (whole) {
        expect(limit).toBeGreaterThan(8)
        return
      }
      const [place] = UndoPlace.in(live).places
      expect(place?.note.state).toBe('swapping')
      if (limit % 2 === 0) {
        expect((await restoreInto(at, live)).inPlace).toMatchObject({ id: place?.id, bytesToWrite: undefined })
        expect(differences(at.truth, archiveTree(live)), `cut at ${limit}`).toEqual([])
      }
      await undo(live, place?.id)
      expect(differences(before, walkTree(live)), `cut at ${limit}, undone`).toEqual([])
    }
  })

  it('at any rename of its undo goes on with that, and nothing else begins there', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = walkTree(at.live)
    for (let limit = 1; ; limit++) {
      const live = copyOf(at.live)
      const { id } = (await restoreInto(at, live)).inPlace
      const cut = cutAt(limit)
      const whole = await undo(live, id).then(
        () => true,
        () => false,
      )
      cut.mend()
      if (!whole) {
        await expect(restoreInto(at, live)).rejects.toMatchObject({ code: 'unfinished' })
        await expect(forgetRestore(live, id ?? '')).rejects.toMatchObject({ code: 'unfinished' })
        expect(await undo(live, id)).toMatchObject({ done: true })
      }
      expect(differences(before, walkTree(live)), `cut at ${limit}`).toEqual([])
      if (whole) {
        expect(limit).toBeGreaterThan(8)
        return
      }
    }
  })

  it('at any rename of an undo that is forced goes on as forced, and does nothing twice', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = namesOf(walkTree(at.live))
    for (let limit = 1; ; limit++) {
      const live = copyOf(at.live)
      const { id } = (await restoreInto(at, live)).inPlace
      changeAgain(live)
      const cut = cutAt(limit)
      const whole = await undo(live, id, true).then(
        () => true,
        () => false,
      )
      cut.mend()
      if (!whole) expect(await undo(live, id)).toMatchObject({ done: true, troubles: [], placeStays: true })
      for (const isForced of [true, false, true]) {
        expect(differences(before, namesOf(archiveTree(live))), `cut at ${limit}`).toEqual([])
        const [place] = UndoPlace.in(live).places
        expect(place?.note.state).toBe('undone-but')
        const kept = filesIn(place?.directory ?? '')
        for (const content of CHANGED_AGAIN) expect(kept, `what had to make way, cut at ${limit}`).toContain(content)
        expect(await undo(live, id, isForced)).toMatchObject({ done: true, troubles: [], placeStays: true })
      }
      if (whole) {
        expect(limit).toBeGreaterThan(6)
        return
      }
    }
  })

  it('where names cannot be exchanged likewise', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = walkTree(at.live)
    const moved = (): { mend: () => void } => {
      const spy = vi.spyOn(libc as NonNullable<typeof libc>, 'exchange').mockReturnValue(false)
      return { mend: () => spy.mockRestore() }
    }
    for (let limit = 1; ; limit++) {
      const live = copyOf(at.live)
      const cut = cutAt(limit)
      const plain = moved()
      const whole = await restoreInto(at, live).then(
        () => true,
        () => false,
      )
      cut.mend()
      if (!whole) await restoreInto(at, live)
      plain.mend()
      expect(differences(at.truth, archiveTree(live)), `cut at ${limit}`).toEqual([])
      const [place] = UndoPlace.in(live).places
      await undo(live, place?.id)
      expect(differences(before, walkTree(live)), `cut at ${limit}, undone`).toEqual([])
      if (whole) {
        expect(limit).toBeGreaterThan(10)
        return
      }
    }
  })

  it('while it stages has changed nothing, keeps what it has written, and is not gone on with by another one', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = walkTree(at.live)
    const real = at.store.history.chunks.bind(at.store.history)
    let calls = 0
    const chunks = vi.spyOn(at.store.history, 'chunks').mockImplementation(async function* (refs) {
      // The first is for the estimate.
      calls += 1
      let given = 0
      for await (const result of real(refs)) {
        if (calls > 1 && ++given > 2) throw new RangeError('the power failed')
        yield result
      }
    })
    await expect(restoreInto(at, at.live)).rejects.toThrow('the power failed')
    chunks.mockRestore()
    const unchanged = new Map([...archiveTree(at.live)].filter(([path]) => path !== ''))
    expect(differences(new Map([...before].filter(([path]) => path !== '')), unchanged)).toEqual([])
    await expect(restoreInto(at, at.live, { delete: false })).rejects.toMatchObject({ code: 'unfinished' })
    const { inPlace } = await restoreInto(at, at.live)
    expect(differences(at.truth, archiveTree(at.live))).toEqual([])
    await undo(at.live, inPlace.id)
    expect(differences(before, walkTree(at.live))).toEqual([])
  })
})
