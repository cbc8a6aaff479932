import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { Installation } from '../support/installation.ts'

/** Acknowledged records are removed from the journal after ten seconds. */
const TRIMMED_MS = 13_000

describe('an agent that has lost its state, and not its journal', () => {
  it('ends nothing that is there: neither what the collector has, nor what waits for it', async () => {
    const installation = await Installation.make()
    const source = join(installation.directory, 'source')
    mkdirSync(join(source, 'd'), { recursive: true })
    for (const name of ['before', 'd/before', 'gone']) writeFileSync(join(source, name), name)
    installation.startCollector()
    await installation.up()
    installation.enroll('pacs1', source)
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    await setTimeout(TRIMMED_MS)
    await installation.kill('collector')
    for (const name of ['waiting', 'd/waiting']) writeFileSync(join(source, name), name)
    const status = (): { dirty: number; pending: number } =>
      JSON.parse(installation.run('agent', 'status', '--state', installation.stateOf('pacs1'), '--json').stdout)
    await expect.poll(() => status().pending, { timeout: 10_000 }).toBeGreaterThanOrEqual(2)
    await installation.kill('pacs1')

    rmSync(join(installation.stateOf('pacs1'), 'state'), { recursive: true })
    rmSync(join(source, 'gone'))
    installation.startCollector()
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    const { stdout } = installation.run('find', 'pacs1:images', '**', '--at', 'now', '--data', installation.data, '--json')
    const paths = stdout.split('\n').flatMap((line) => (line === '' ? [] : [(JSON.parse(line) as { path?: string }).path]))
    expect(paths.filter((path) => path !== undefined).toSorted()).toEqual(['before', 'd', 'd/before', 'd/waiting', 'waiting'])
  })
})
