import { describe, expect, it } from 'vitest'
import { pathMatcher } from '../../collector/path-pattern.ts'
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
