/** A journal in a file, for a process of its own that is to take it in. */
import { readFileSync, writeFileSync } from 'node:fs'
import { deserialize, serialize } from 'node:v8'
import type { Label } from '../../shared/path.ts'
import type { Message } from '../../shared/wire.ts'
import type { JournalWriter } from './journal-writer.ts'

type ChunkMessage = Extract<Message, { kind: 'chunk' }>

/** What is sent at once. */
export interface JournalGroup {
  readonly chunks: readonly ChunkMessage[]
  readonly records: readonly { readonly seq: number; readonly bytes: Uint8Array }[]
}

interface WrittenJournal {
  readonly agent: Label
  readonly groups: readonly JournalGroup[]
}

/** From the record behind `from` on, each record a group with the chunks that it names. */
export function writeJournal(file: string, writer: JournalWriter, from: number): void {
  const groups = writer.written.slice(from).map(({ record, bytes }): JournalGroup => {
    const named = record.kind === 'put' && record.version.kind === 'file' ? record.version.chunks : []
    return { chunks: named.map(({ digest }) => writer.chunkMessage(digest)), records: [{ seq: record.seq, bytes }] }
  })
  writeFileSync(file, serialize({ agent: writer.agent, groups } satisfies WrittenJournal))
}

export function readJournal(file: string): WrittenJournal {
  const { agent, groups } = deserialize(readFileSync(file)) as WrittenJournal
  return {
    agent,
    groups: groups.map(({ chunks, records }) => ({
      records,
      chunks: chunks.map((chunk) => ({ ...chunk, bytes: Buffer.from(chunk.bytes) })),
    })),
  }
}
