import type { Reporter, TestModule } from 'vitest/node'

interface Tally {
  passed: number
  failed: number
  skipped: number
}

/**
 * Ends a test run with one plain line, `N passed, N failed, N skipped`, that a person finds and a script parses.
 *
 * On a build server (`CI` set) a skipped test fails the run: there every capability that a test needs must be
 * present, and a suite that silently shrinks proves nothing. The line is written as the process exits, so nothing
 * of Vitest's own comes after it.
 */
export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly unknown[]): void {
    const tally = count(modules)
    tally.failed += unhandled.length
    const refused = tally.skipped > 0 && isBuildServer(process.env)
    process.once('exit', () => {
      if (refused) {
        process.exitCode = 1
        process.stdout.write('A skipped test is a failure where CI is set.\n')
      }
      process.stdout.write(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped\n`)
    })
  }
}

/** A file or suite that failed outside its tests (an import, a hook) counts as one failure. */
function count(modules: readonly TestModule[]): Tally {
  const tally: Tally = { passed: 0, failed: 0, skipped: 0 }
  for (const module of modules) {
    tally.failed += module.errors().length
    for (const suite of module.children.allSuites()) tally.failed += suite.errors().length
    for (const test of module.children.allTests()) {
      const { state } = test.result()
      if (state === 'passed') tally.passed++
      else if (state === 'failed') tally.failed++
      else tally.skipped++
    }
  }
  return tally
}

function isBuildServer(environment: NodeJS.ProcessEnv): boolean {
  const { CI } = environment
  return CI !== undefined && CI !== '' && CI !== '0' && CI !== 'false'
}
