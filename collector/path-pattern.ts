/**
 * Patterns over paths: `*` and `?` within a name, `**` over names.
 *
 * Names are bytes and a leading dot is nothing special. Invariant: what a hold's pattern matches, it matches with all below it. It
 * prevents a hold on a study from leaving out the files that are in it.
 */
import { parentOf, type RelativePath } from '../shared/path.ts'

/** Whether a path, or a directory above it, matches. The empty pattern matches everything. */
export function pathMatcher(pattern: string): (path: RelativePath) => boolean {
  if (pattern === '') return () => true
  const whole = new RegExp(`^${translated(pattern)}$`, 's')
  return (path) => {
    for (let at: RelativePath | undefined = path; at !== undefined; at = parentOf(at)) if (whole.test(at)) return true
    return false
  }
}

/** Whether a path itself matches; a pattern without '/' is one over its last name. `ignoresCase`: of ASCII letters. */
export function nameMatcher(pattern: string, ignoresCase: boolean): (path: RelativePath) => boolean {
  const text = translated(pattern.includes('/') ? pattern : `**/${pattern}`)
  const whole = new RegExp(`^${ignoresCase ? text.replace(/[a-z]/gi, eitherCase) : text}$`, 's')
  return (path) => whole.test(path)
}

/** Not the flag `i`, which would take bytes above 127 for letters of Latin-1. */
function eitherCase(letter: string): string {
  return `[${letter.toLowerCase()}${letter.toUpperCase()}]`
}

function translated(pattern: string): string {
  return pattern.replace(/\*\*\/|\*\*|[*?]|[\\^$.|+()[\]{}]/g, (found) => {
    switch (found) {
      case '**/':
        return '(?:.*/)?'
      case '**':
        return '.*'
      case '*':
        return '[^/]*'
      case '?':
        return '[^/]'
      default:
        return `\\${found}`
    }
  })
}
