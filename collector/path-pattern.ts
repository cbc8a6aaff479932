/**
 * Patterns over paths, as holds use them: `*` and `?` within a name, `**` over names, everything below what matches.
 *
 * Names are bytes and a leading dot is nothing special. Invariant: what matches a directory matches all below it. It prevents a hold on a
 * study from leaving out the files that are in it.
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
