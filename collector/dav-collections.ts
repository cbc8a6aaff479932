/**
 * What stands at an address of WebDAV: agents, their volumes, the moments of a volume, and what a directory held at one of them.
 *
 * Only files and directories are shown: WebDAV has no words for links and devices. Invariant: what a restorer may not read is not
 * there, whether it exists or not. It prevents the listing from telling what the content would not.
 */
import { millisecondsOf } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { byteString, type Label, nameOf, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { FileVersion } from '../shared/version.ts'
import { absenceOfContent } from './absent-content.ts'
import type { Allowance, Place } from './allowance.ts'
import type { Catalog } from './catalog.ts'
import type { DavItem } from './dav-answer.ts'
import { DAV_PATH, type DavPlace, davMoment, davPart } from './dav-place.ts'
import type { History } from './history.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const HOURS_LISTED = 24
const DAYS_LISTED = 31

export interface DavFile {
  readonly path: RelativePath
  readonly version: FileVersion
}

type PathPlace = Extract<DavPlace, { kind: 'path' }>

export class DavCollections {
  readonly #history: History
  readonly #catalog: Catalog

  constructor(history: History, catalog: Catalog) {
    this.#history = history
    this.#catalog = catalog
  }

  /** The place itself, and what is in it where that is asked for. @throws not-found, outside-window */
  async list(allowance: Allowance, place: DavPlace, isDeep: boolean): Promise<AsyncIterable<DavItem>> {
    switch (place.kind) {
      case 'agents': {
        const agents = (await this.#allowed(allowance)).map(({ agent }) => agent)
        return collections([], unique(agents), isDeep)
      }
      case 'volumes': {
        const volumes = (await this.#allowed(allowance)).filter(({ agent }) => agent === place.agent).map(({ volume }) => volume)
        if (volumes.length === 0) throw nothing()
        return collections([place.agent], volumes, isDeep)
      }
      case 'moments':
        this.#require(allowance, place)
        return collections([place.agent, place.volume], isDeep ? await this.#moments(place) : [], isDeep)
      case 'path': {
        this.#require(allowance, place)
        const at = await this.#position(place)
        const entry = await this.#catalog.entryAt(place.agent, place.volume, place.path, at)
        // The root of a volume that holds nothing is there all the same.
        if (entry === undefined && place.path !== ROOT) throw nothing()
        if (entry !== undefined && entry.version.kind !== 'file' && entry.version.kind !== 'directory') throw nothing()
        const own = itemOf(place, place.path, entry?.version)
        return entry?.version.kind === 'file' || !isDeep ? only(own) : this.#directory(own, place, at)
      }
    }
  }

  /** @throws not-found, outside-window; incomplete where its content cannot be had; unsupported for a collection */
  async file(allowance: Allowance, place: DavPlace): Promise<DavFile> {
    if (place.kind !== 'path') throw new PacsimileError('unsupported', 'This is a collection: PROPFIND lists it')
    const { agent, volume, path } = place
    this.#require(allowance, place)
    const entry = await this.#catalog.entryAt(agent, volume, path, await this.#position(place))
    if (entry === undefined) throw nothing()
    const { version } = entry
    if (version.kind === 'directory') throw new PacsimileError('unsupported', 'This is a collection: PROPFIND lists it')
    if (version.kind !== 'file')
      throw new PacsimileError('not-found', `${showPath(path)} was a ${version.kind} then, which WebDAV cannot give`)
    const absence = await absenceOfContent(this.#catalog, agent, volume, entry)
    if (absence !== undefined)
      throw new PacsimileError('incomplete', `That version of ${showPath(path)} has no content any more: it is ${absence}`)
    if (version.consistency === 'torn')
      throw new PacsimileError('incomplete', `${showPath(path)} was torn when captured: \`restore --torn\` and \`cat\` give it and say so`)
    return { path, version }
  }

  async #allowed(allowance: Allowance): Promise<Place[]> {
    return (await this.#history.volumes()).filter((place) => allowance.has(place))
  }

  #require(allowance: Allowance, place: Place): void {
    if (!allowance.has(place) || this.#catalog.volume(place.agent, place.volume) === undefined) throw nothing()
  }

  async #position({ agent, volume, moment }: PathPlace): Promise<Position> {
    return (await this.#history.point(agent, volume, davMoment(moment, Date.now()))).position
  }

  async *#directory(own: DavItem, place: PathPlace, at: Position): AsyncGenerator<DavItem> {
    yield own
    for await (const { path, version } of this.#catalog.treeAt(place.agent, place.volume, place.path, at, 'directory'))
      if (path !== place.path && (version.kind === 'file' || version.kind === 'directory')) yield itemOf(place, path, version)
  }

  /** Now, every mark, and whole hours and days of the window. Any other moment is there too, and not listed. */
  async #moments({ agent, volume }: Place): Promise<string[]> {
    const { from, until } = await this.#history.window(agent, volume)
    const marks = unique((await this.#history.marks(agent, volume)).map(({ name }) => `@mark:${name}`))
    if (from === undefined) return ['@now', ...marks]
    const [first, last] = [millisecondsOf(from), Math.min(millisecondsOf(until), Date.now())]
    const every = (ms: number, count: number): number[] =>
      Array.from({ length: count }, (_, i) => (Math.floor(last / ms) - i) * ms).filter((time) => time >= first)
    const times = [...new Set([...every(HOUR_MS, HOURS_LISTED), ...every(DAY_MS, DAYS_LISTED)])].toSorted((a, b) => a - b)
    return ['@now', ...marks, ...times.map((ms) => `@${new Date(ms).toISOString().replace('.000Z', 'Z')}`)]
  }
}

function nothing(): PacsimileError {
  return new PacsimileError('not-found', 'There is nothing at this address')
}

function unique<Item>(items: readonly Item[]): Item[] {
  return [...new Set(items)]
}

async function* only(item: DavItem): AsyncGenerator<DavItem> {
  yield item
}

async function* collections(above: readonly Label[], names: readonly string[], isDeep: boolean): AsyncGenerator<DavItem> {
  yield { href: hrefOf([...above], true), name: above.at(-1) ?? 'Pacsimile', version: undefined }
  if (isDeep)
    for (const name of names) yield { href: hrefOf([...above, byteString(name)], true), name: byteString(name), version: undefined }
}

function itemOf({ agent, volume, moment }: PathPlace, path: RelativePath, version: DavItem['version']): DavItem {
  const at = byteString(`@${moment}`)
  const names = path === ROOT ? [] : path.split('/')
  return {
    href: hrefOf([agent, volume, at, ...names], version?.kind !== 'file'),
    name: path === ROOT ? at : nameOf(path),
    version,
  }
}

function hrefOf(parts: readonly string[], isCollection: boolean): string {
  return `${[DAV_PATH, ...parts.map(davPart)].join('/')}${isCollection ? '/' : ''}`
}
