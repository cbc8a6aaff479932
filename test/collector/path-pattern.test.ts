import { describe, expect, it } from 'vitest'
import { nameMatcher, pathMatcher } from '../../collector/path-pattern.ts'
import { relativePath } from '../../shared/path.ts'

describe('a pattern over paths', () => {
  it.each([
    ['', ['', 'a', 'a/.b'], []],
    ['study-1', ['study-1', 'study-1/x', 'study-1/.x/y'], ['', 'study-10', 'a/study-1']],
    ['*.dcm', ['a.dcm', '.dcm', '.a.dcm'], ['a/b.dcm', 'adcm', 'a.dcm2']],
    ['**/*.dcm', ['a.dcm', 'a/b.dcm', '.a/.b.dcm'], ['a/b.txt']],
    ['a/**', ['a/b', 'a/b/c'], ['a', 'ab']],
    ['a?c', ['abc', 'abc/d', 'a\xffc'], ['ac', 'a/c']],
    ['a+(b)[1].{x}', ['a+(b)[1].{x}'], ['aab1.x']],
    ['a\nb', ['a\nb'], ['a']],
  ])('%j', (pattern, matching, others) => {
    const matches = pathMatcher(pattern)
    for (const path of matching) expect(matches(relativePath(path)), path).toBe(true)
    for (const path of others) expect(matches(relativePath(path)), path).toBe(false)
  })
})

describe('a pattern over names', () => {
  it.each([
    ['*.dcm', false, ['a.dcm', 'd/a.dcm', 'd/e/.dcm'], ['a.DCM', 'a.dcm/b', '']],
    ['*.dcm', true, ['a.DCM', 'd/A.dCm'], ['a.dcm2']],
    ['d/*', false, ['d/a'], ['d', 'd/a/b', 'x/d/a']],
    ['**/d/*', false, ['d/a', 'x/y/d/a'], ['d']],
    ['[a-z]', true, ['[a-z]', '[A-Z]'], ['b']],
    // 0xe9 and 0xc9 are the letters é and É of Latin-1, and of a name in UTF-8 parts of other characters.
    ['\xe9', true, ['\xe9'], ['\xc9']],
  ])('%j, whatever the case: %s', (pattern, ignoresCase, matching, others) => {
    const matches = nameMatcher(pattern, ignoresCase)
    for (const path of matching) expect(matches(relativePath(path)), path).toBe(true)
    for (const path of others) expect(matches(relativePath(path)), path).toBe(false)
  })
})
