/** Records of one agent that share a records frame, and its payload (docs/format.md, "Records frames"). */
import { ByteReader, ByteWriter } from '../../shared/bytes.ts'
import { LABEL_MAX, RECORD_BYTES_MAX, RECORDS_PER_MESSAGE_MAX } from '../../shared/limits.ts'
import { type Label, label } from '../../shared/path.ts'

/** Consecutive records of one agent: what one records frame holds. */
export interface RecordGroup {
  readonly agent: Label
  /** Encoded, at most RECORDS_PER_MESSAGE_MAX. */
  readonly records: readonly Uint8Array[]
}

/** Records of one agent share a frame as far as it takes them; those of several agents need no order among them. */
export function addToGroups(groups: RecordGroup[], agent: Label, records: readonly Uint8Array[]): void {
  if (records.length === 0) return
  const at = groups.findLastIndex((group) => group.agent === agent)
  const last = groups[at]
  if (last !== undefined && last.records.length + records.length <= RECORDS_PER_MESSAGE_MAX) {
    groups[at] = { agent, records: [...last.records, ...records] }
  } else {
    groups.push({ agent, records })
  }
}

/** Payload of a records frame: the agent, the count, then each record with its length. */
export function encodeRecordGroup(group: RecordGroup): Buffer {
  const to = new ByteWriter(80 + group.records.reduce((sum, record) => sum + record.length + 4, 0))
  to.string(group.agent).varint(group.records.length)
  for (const record of group.records) to.bytes(record)
  return to.view()
}

/** @throws format-invalid */
export function decodeRecordGroup(bytes: Buffer): RecordGroup {
  const from = new ByteReader(bytes, 'Records frame')
  const agent = readAgent(from)
  const records = Array.from({ length: from.varint(RECORDS_PER_MESSAGE_MAX) }, () => from.bytes(RECORD_BYTES_MAX))
  from.end()
  return { agent, records }
}

function readAgent(from: ByteReader): Label {
  const text = from.string(LABEL_MAX)
  try {
    return label(text, 'Agent')
  } catch {
    return from.fail('bad agent name')
  }
}
