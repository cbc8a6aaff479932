import { describe, expect, it } from 'vitest'
import { currentNames } from '../../agent/current-names.ts'
import { Renames } from '../../agent/renames.ts'
import { path, VOLUME } from '../support/agent-parts.ts'

describe('the names of an inode', () => {
  it('are asked for again where a directory was renamed meanwhile', async () => {
    const renames = new Renames()
    const answers = ['a/f', 'b/f']
    const state = {
      namesOf: () => {
        const answer = [path(answers.shift() ?? 'b/f')]
        // It is recorded before the first answer arrives.
        if (answer[0] === 'a/f') renames.recorded(VOLUME, path('a'), path('b'))
        return Promise.resolve(answer)
      },
    }
    expect(await currentNames({ state, renames }, VOLUME, [1n])).toEqual(['b/f'])
    expect(answers).toEqual([])
  })
})
