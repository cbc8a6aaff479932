/** A small golden repository that is being made, with one pack and one segment; its key file holds 32 bytes 0x07. */
import { createSecretKey } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FrameFile, type MakeParity } from '../../collector/repository/frame-file.ts'
import { formatSlot, sealSlot } from '../../collector/repository/key-slot.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'

const KEY_FILE = Buffer.alloc(32, 7)

export class GoldenPlace {
  readonly directory: string
  readonly pack: FrameFile
  readonly segment: FrameFile

  private constructor(directory: string, pack: FrameFile, segment: FrameFile) {
    this.directory = directory
    this.pack = pack
    this.segment = segment
  }

  /** In the directory that the command line names, which must be empty. */
  static begin(id: string, dataKey: Buffer): GoldenPlace {
    const [, program = '', directory] = process.argv
    if (directory === undefined) throw new Error(`usage: node ${program} DIRECTORY`)
    if (existsSync(directory) && readdirSync(directory).length > 0)
      throw new Error(`${directory} holds golden files; they are made once and never again`)
    const repository = join(directory, 'repository')
    mkdirSync(directory, { recursive: true })
    Repository.create(repository, { id, chunkSizes: DEFAULT_CHUNK_SIZES })
    const slot = sealSlot(id, dataKey, { kind: 'key-file', bytes: KEY_FILE })
    writeFileSync(join(repository, 'keys', `${slot.id}.json`), formatSlot(slot))
    writeFileSync(join(directory, 'repository.key'), `pacsimile-key-1:${KEY_FILE.toString('hex')}\n`)
    const file = (kind: 'pack' | 'segment', suffix: string): FrameFile => {
      const shelf = join(repository, `${kind}s`, '01')
      mkdirSync(shelf)
      return FrameFile.create(join(shelf, `000000000001.${suffix}`), { kind, repository: id, number: 1 }, createSecretKey(dataKey))
    }
    return new GoldenPlace(directory, file('pack', 'pack'), file('segment', 'seg'))
  }

  async seal(makeParity?: MakeParity): Promise<void> {
    for (const file of [this.pack, this.segment]) {
      await file.seal(makeParity)
      file.close()
    }
  }

  writeJson(name: string, value: object): void {
    writeFileSync(join(this.directory, name), `${JSON.stringify(value, null, 1)}\n`)
  }
}
