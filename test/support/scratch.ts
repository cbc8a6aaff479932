/** Temporary directories that go away with the test that made them. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

export function scratchDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'pacsimile-test-'))
  if (process.env['PACSIMILE_KEEP'] !== '1') onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}
