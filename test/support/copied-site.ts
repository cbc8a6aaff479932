/** A collector and an agent as real processes, with a source and one copy of the repository. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { CopyReport } from '../../collector/copier.ts'
import type { CollectorStatus } from '../../collector/status.ts'
import { Installation } from './installation.ts'
import { scratchDirectory } from './scratch.ts'
import { walkTree } from './tree-walk.ts'
import { differences } from './truth.ts'
import { until } from './until.ts'
import { Random } from './workload.ts'

const SECONDS = 90

export class CopiedSite {
  readonly installation: Installation
  readonly source: string

  constructor(installation: Installation) {
    this.installation = installation
    this.source = join(installation.directory, 'source')
  }

  /** An initialised collector, not running. */
  static async make(): Promise<CopiedSite> {
    return new CopiedSite(await Installation.make())
  }

  get status(): CollectorStatus {
    return this.installation.json('status', '--data', this.installation.data) as CollectorStatus
  }

  /** The repository that the collector writes. */
  get repository(): string {
    return join(this.installation.data, 'repository')
  }

  get keyOptions(): string[] {
    return ['--key-file', join(this.installation.data, 'keys/repository.key')]
  }

  async startCollector(): Promise<void> {
    this.installation.startCollector()
    await this.installation.up()
  }

  addCopy(name: string, ...place: string[]): void {
    this.installation.run('copy', 'add', name, ...place, '--data', this.installation.data)
  }

  /** Enrols an agent, gives it files to protect, starts it, and waits until all is here. */
  async protect(files: number, fileBytes: number): Promise<void> {
    const { installation, source } = this
    installation.enroll('pacs1', source)
    const random = new Random(11)
    for (let i = 0; i < files; i++) writeFileSync(join(source, `${i}.dcm`), random.bytes(fileBytes))
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
  }

  /** Of the copy; a collector that is starting is waited for. */
  async untilState(state: string): Promise<void> {
    const { installation } = this
    let last: CopyReport | undefined
    try {
      await until(`the copy is ${state}`, SECONDS, async () => {
        last = (await installation.statusIfUp())?.copies[0]
        return last?.state === state && (state !== 'current' || last.behindBytes === 0) ? true : undefined
      })
    } catch (error) {
      throw new Error(`${String(error)}: ${JSON.stringify(last)}\n${installation.log('collector').slice(-2000)}`, { cause: error })
    }
  }

  /** A repository, or a copy alone, is whole, and gives back what the source is. */
  expectRestored(repository: string): void {
    const { installation, source, keyOptions } = this
    const options = ['--repository', repository, ...keyOptions]
    expect(installation.json('check', ...options)).toMatchObject({ whole: true, damage: [], affected: [] })
    const to = join(scratchDirectory(), 'restored')
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, ...options)
    expect(differences(walkTree(source), walkTree(to))).toEqual([])
  }
}
