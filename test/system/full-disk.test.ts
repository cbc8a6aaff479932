import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Installation } from '../support/installation.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { Random } from '../support/workload.ts'

const FILES = 40
const BALLAST_BYTES = 100 << 20

function mount(directory: string): void {
  const image = join(directory, 'disk')
  writeFileSync(image, '')
  truncateSync(image, 160 << 20)
  const at = join(directory, 'mounted')
  mkdirSync(at)
  for (const [command, ...args] of [
    ['mkfs.ext4', '-q', '-F', image],
    ['mount', '-o', 'loop', image, at],
  ] as const) {
    const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`${command}: ${stderr}`)
  }
  onTestFinished(() => {
    spawnSync('umount', [at])
  })
  // Filling a disk is only allowed on the one that this test made.
  if (statSync(at).dev === statSync(tmpdir()).dev) throw new Error('the small filesystem is not mounted')
}

describe.skipIf(process.getuid?.() !== 0)('a full disk under the collector', () => {
  it('stops nothing but the taking in; when there is space again, everything arrives', async () => {
    const directory = scratchDirectory()
    mount(directory)
    const installation = await Installation.make(join(directory, 'mounted', 'data'))
    const source = join(installation.directory, 'source')
    const ballast = join(directory, 'mounted', 'ballast')
    writeFileSync(ballast, Buffer.alloc(BALLAST_BYTES, 1))
    installation.startCollector()
    await installation.up()
    installation.enroll('pacs1', source)
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    const random = new Random(1)
    for (let i = 0; i < FILES; i++) writeFileSync(join(source, `f${i}`), random.bytes(1 << 20))

    const failureOf = (): string | undefined => (installation.json('status', '--data', installation.data) as { failure?: string }).failure
    await expect.poll(failureOf, { timeout: 30_000, interval: 200 }).toMatch(/ENOSPC/)
    expect(installation.try('wait', 'pacs1', '--data', installation.data, '--timeout', '1s').status).toBe(7)
    expect(installation.isRunning('collector')).toBe(true)

    rmSync(ballast)
    await installation.wait('pacs1')
    expect(failureOf()).toBeUndefined()
    expect(differences(walkTree(source), walkTree(installation.replicaOf('pacs1')))).toEqual([])
    expect(installation.json('check', '--data', installation.data)).toMatchObject({ whole: true, affected: [] })
    // The loop device can only go when nobody uses it.
    await installation.stopAll()
  })
})
