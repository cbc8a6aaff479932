/** The golden files of version 1, and the worked examples of the documents. */
import { cpSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { scratchDirectory } from '../support/scratch.ts'
import type { Plain } from './plain.ts'

export const GOLDEN = join(import.meta.dirname, 'v1')

/** The same of versions with extension fields, added to version 1 later. */
export const GOLDEN_EXTENSIONS = join(import.meta.dirname, 'v1-extensions')

/** The same of chunks that are filtered. */
export const GOLDEN_FILTER = join(import.meta.dirname, 'v1-filter')

/** The same of sealed files with parity. */
export const GOLDEN_PARITY = join(import.meta.dirname, 'v1-parity')

/** The same of a ledger. */
export const GOLDEN_LEDGER = join(import.meta.dirname, 'v1-ledger')

/** The access log, and what a ledger says of it. */
export const GOLDEN_ACCESS = join(import.meta.dirname, 'v1-access')
/** The messages that ask an agent for content. */
const GOLDEN_ASK = join(import.meta.dirname, 'v1-ask')

export interface GoldenItem {
  readonly hex: string
  /** Of a record. */
  readonly hash?: string
  /** Of a record of the extensions: what the fields of its version say. */
  readonly says?: Plain
  readonly value: { readonly kind: string; readonly [name: string]: Plain }
}

export interface ExpectedPoint {
  readonly agent: string
  readonly volume: string
  readonly epoch: number
  readonly seq: number
  readonly time: string
  readonly tree: readonly { readonly path: string; readonly kind: string; readonly digest?: string; readonly lost?: true }[]
}

export interface Expected {
  readonly dataKey: string
  readonly chunks: readonly string[]
  /** SHA-256 by digest. */
  readonly contents: Readonly<Record<string, string>>
  readonly records: readonly { readonly agent: string; readonly records: readonly Plain[] }[]
  readonly points: readonly ExpectedPoint[]
}

function read(name: string, directory = GOLDEN): unknown {
  return JSON.parse(readFileSync(join(directory, name), 'utf8'))
}

export function goldenExtensions(): { records: GoldenItem[]; tree: readonly { readonly path: string }[] } {
  const records = read('records.json', GOLDEN_EXTENSIONS) as GoldenItem[]
  return { records, tree: read('tree.json', GOLDEN_EXTENSIONS) as { path: string }[] }
}

/** By path, in hex. */
export function goldenFiltered(): Readonly<Record<string, string>> {
  return read('contents.json', GOLDEN_FILTER) as Record<string, string>
}

export function goldenLedger(): readonly { readonly hex: string; readonly value: Plain }[] {
  return read('entries.json', GOLDEN_LEDGER) as { hex: string; value: Plain }[]
}

/** The entry that names the last line of the golden access log. */
export function goldenAccess(): ReturnType<typeof goldenLedger> {
  return read('entries.json', GOLDEN_ACCESS) as { hex: string; value: Plain }[]
}

/** SHA-256 by path. */
export function goldenWithParity(): Readonly<Record<string, string>> {
  return read('contents.json', GOLDEN_PARITY) as Record<string, string>
}

export function goldenItems(name: 'records.json' | 'messages.json'): GoldenItem[] {
  const added = name === 'messages.json' ? (read(name, GOLDEN_ASK) as GoldenItem[]) : []
  return [...(read(name) as GoldenItem[]), ...added]
}

export function goldenRepository(): Expected {
  return read('expected.json') as Expected
}

/** A copy of the golden repository, to be harmed. */
export function copiedRepository(): string {
  const directory = join(scratchDirectory(), 'repository')
  cpSync(join(GOLDEN, 'repository'), directory, { recursive: true })
  return directory
}

export function documentText(name: string): string {
  return readFileSync(join(import.meta.dirname, '../../docs', name), 'utf8')
}

/** The bytes of a fenced block that is marked `hex NAME`; what follows a semicolon is for people. */
export function workedExample(document: string, name: string): Buffer {
  const [, block] = new RegExp(`^\`\`\`hex ${name}\\n([^\`]*)\`\`\``, 'm').exec(document) ?? []
  if (block === undefined) throw new Error(`the document has no example ${name}`)
  const digits = block.replaceAll(/;.*$/gm, '').replaceAll(/\s/g, '')
  if (!/^([0-9a-f]{2})+$/.test(digits)) throw new Error(`the example ${name} is not in hex`)
  return Buffer.from(digits, 'hex')
}

/** The rows of the table whose header begins with these cells. */
export function tableOf(document: string, ...header: readonly string[]): string[][] {
  const lines = document.split('\n')
  const cells = (line: string): string[] =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim())
  const start = lines.findIndex((line) => line.startsWith('|') && header.every((cell, i) => cells(line)[i] === cell))
  if (start < 0) throw new Error(`the document has no table ${header.join(' | ')}`)
  const end = lines.findIndex((line, i) => i > start && !line.startsWith('|'))
  return lines.slice(start + 2, end).map(cells)
}
