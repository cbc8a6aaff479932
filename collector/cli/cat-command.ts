/**
 * `pacsimile cat`: the content of a file at a moment, on stdout.
 *
 * Invariant: every chunk is verified before its bytes are written, and the exit status says whether all of them came.
 * It prevents damaged content from passing through a pipe as if it were the file.
 */
import type { Argv } from 'yargs'
import { digestOf } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { showPath } from '../../shared/path.ts'
import type { FileVersion } from '../../shared/version.ts'
import type { HistorySource, ListedEntry } from '../history-source.ts'
import { type PointRequest, parsePoint } from '../point.ts'
import { absenceOf } from './absence.ts'
import { showBytes } from './amounts.ts'
import { entryFields } from './entry-row.ts'
import { sayJson } from './json.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { readerKeepsUp, warn } from './output.ts'
import { openSource } from './source.ts'
import { parseTarget, showTarget, type Target } from './target.ts'

/** One JSON document must fit into one string. */
const JSON_CONTENT_MAX = 256 << 20

type ListedFile = ListedEntry & { readonly version: FileVersion }

export function catCommand(yargs: Argv): Argv {
  return yargs.command(
    'cat <target>',
    'The content of a file at a moment, verified, to standard output',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options))
          .positional('target', TARGET)
          .option('at', { ...MOMENT, describe: AT_HELP, default: 'now' }),
        'cat pacs1:images/2026/11/study-06/0001.dcm --at "1h ago" > before.dcm',
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target, at }) => {
      const place = parseTarget(target)
      const moment = parsePoint(at)
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const file = await fileAt(source, place, moment)
      if (json) {
        sayJson({ ...entryFields(file), content: await contentOf(source, file) })
        return
      }
      if (file.version.consistency === 'torn')
        warn(`${showTarget(place)} changed while it was captured: this content may never have existed as a whole`)
      for await (const bytes of verified(source, file)) {
        process.stdout.write(bytes)
        await readerKeepsUp()
      }
    },
  )
}

async function fileAt(source: HistorySource, place: Target, at: PointRequest): Promise<ListedFile> {
  const point = await source.point(place.agent, place.volume, at)
  for await (const entry of source.tree(place.agent, place.volume, place.path, point.position, 'directory')) {
    const { version } = entry
    if (version.kind !== 'file') throw new PacsimileError('usage', `${showTarget(place)} was a ${version.kind} then, not a file`)
    if (entry.absent === 'lost')
      throw new PacsimileError('incomplete', `The agent could not keep that version of ${showTarget(place)} until it was acknowledged`)
    if (entry.absent === 'expired')
      throw new PacsimileError('incomplete', `That version of ${showTarget(place)} has expired: the retention did not ask for it any more`)
    return { ...entry, version }
  }
  throw await absenceOf(source, place, point.position)
}

async function* verified(source: HistorySource, { path, version }: ListedFile): AsyncGenerator<Buffer> {
  let next = 0
  for await (const result of source.chunks(version.chunks)) {
    const ref = version.chunks[next]
    next += 1
    if ('failure' in result) throw new PacsimileError('damage', `${showPath(path)}: ${result.failure}`)
    if (ref === undefined || digestOf(result.bytes) !== ref.digest)
      throw new PacsimileError('damage', `${showPath(path)}: content came that is not what its digest names`)
    yield result.bytes
  }
  if (next < version.chunks.length) throw new PacsimileError('damage', `${showPath(path)}: only ${next} of its chunks came`)
}

/** In base64. */
async function contentOf(source: HistorySource, file: ListedFile): Promise<string> {
  if (file.version.size > JSON_CONTENT_MAX) {
    const most = showBytes(JSON_CONTENT_MAX)
    throw new PacsimileError('usage', `${showPath(file.path)} has ${showBytes(file.version.size)}; --json carries at most ${most}`)
  }
  return Buffer.concat(await Array.fromAsync(verified(source, file))).toString('base64')
}
