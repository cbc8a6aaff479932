/** What a command says, gathered into few writes: whole, and in order with what it says beside it. */
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { formatJson } from '../../collector/cli/json.ts'
import { scratchDirectory } from '../support/scratch.ts'

const OUTPUT = join(import.meta.dirname, '../../collector/cli/output.ts')

/** Both streams of a program go to one file, as with 2>&1. */
function saidBy(program: string): string[] {
  const file = join(scratchDirectory(), 'said')
  const descriptor = openSync(file, 'w')
  const imports = `import { endWithoutReader, note, say, wasSaid } from ${JSON.stringify(OUTPUT)};endWithoutReader(() => 1);`
  const { status } = spawnSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', `${imports}${program}`],
    { stdio: ['ignore', descriptor, descriptor] },
  )
  closeSync(descriptor)
  expect(status).toBe(0)
  return readFileSync(file, 'utf8').split('\n').slice(0, -1)
}

describe('what is said', () => {
  it('stands in order with what is noted, however much it is', () => {
    const said = saidBy(
      'note("first"); for (let i = 0; i < 30_000; i++) say(`line ${i}`); note("between"); say("one"); await wasSaid(); note("two"); say("last")',
    )
    const lines = Array.from({ length: 30_000 }, (_, i) => `line ${i}`)
    expect(said).toEqual(['first', ...lines, 'between', 'one', 'two', 'last'])
  })

  it('is there before anything is waited for, and when the process is ended at once', () => {
    expect(saidBy('say("a"); await new Promise((done) => setTimeout(done, 50)); process.stderr.write("b\\n"); say("c")')).toEqual([
      'a',
      'b',
      'c',
    ])
    expect(saidBy('say("a"); process.exit(0)')).toEqual(['a'])
  })
})

describe('JSON', () => {
  it('has bigints as decimal strings, at any depth, and fails for what goes round in circles', () => {
    expect(formatJson({ a: 1, b: [{ c: 2n ** 64n }], d: null })).toBe('{"a":1,"b":[{"c":"18446744073709551616"}],"d":null}')
    const circle: { itself?: object } = {}
    circle.itself = circle
    expect(() => formatJson(circle)).toThrow(TypeError)
  })
})
