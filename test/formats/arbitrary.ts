/** Arbitrary records, versions and messages, as fast-check makes them. */
import fc from 'fast-check'
import { hybridTime } from '../../shared/clock.ts'
import { type Digest, digest } from '../../shared/digest.ts'
import { ASKED_SPOTS_MAX, CHUNK_BYTES_MAX } from '../../shared/limits.ts'
import { type Label, label, relativePath } from '../../shared/path.ts'
import { type Change, EPOCH_REASONS, type JournalRecord, WATCH_MODES } from '../../shared/record.ts'
import { CONSISTENCIES, type Version } from '../../shared/version.ts'
import type { Message } from '../../shared/wire.ts'

const byteString = (constraints: { minLength?: number; maxLength?: number }): fc.Arbitrary<string> =>
  fc.uint8Array(constraints).map((bytes) => Buffer.from(bytes).toString('latin1'))
const digests: fc.Arbitrary<Digest> = byteString({ minLength: 32, maxLength: 32 }).map(digest)
const labels: fc.Arbitrary<Label> = fc
  .stringMatching(/^[a-z0-9][a-z0-9._-]{0,63}$/)
  .filter((text) => text.length <= 64)
  .map((text) => label(text, 'Name'))
const name = byteString({ minLength: 1, maxLength: 255 }).filter((bytes) => !/[/\0]/.test(bytes) && bytes !== '.' && bytes !== '..')
const paths = fc.array(name, { maxLength: 5 }).map((names) => relativePath(names.join('/')))
const counts = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const words = fc.nat({ max: 0xffff_ffff })
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
const i64 = fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n })
const times = u64.map(hybridTime)
const text = fc.string({ unit: 'binary', maxLength: 200 })
const positive = counts.map((count) => Math.max(1, count))

const xattrs = fc
  .uniqueArray(
    fc.record({
      name: byteString({ minLength: 1, maxLength: 255 }).filter((bytes) => !bytes.includes('\0')),
      value: byteString({ maxLength: 300 }),
    }),
    { selector: (xattr) => xattr.name, maxLength: 5 },
  )
  .map((list) => list.toSorted((a, b) => (a.name < b.name ? -1 : 1)))

const extensions = fc
  .uniqueArray(fc.record({ tag: fc.integer({ min: 128, max: 0xffff }), value: byteString({ maxLength: 300 }) }), {
    selector: (field) => field.tag,
    maxLength: 3,
  })
  .map((list) => (list.length === 0 ? {} : { extensions: list.toSorted((a, b) => a.tag - b.tag) }))

const metadata = fc
  .tuple(
    fc.record({ mode: fc.nat(0o7777), uid: words, gid: words, mtimeNs: i64, ctimeNs: i64, inode: u64, links: words, xattrs }),
    extensions,
  )
  .map(([fields, extension]) => ({ ...fields, ...extension }))

const chunks = fc.array(fc.record({ digest: digests, length: fc.integer({ min: 1, max: CHUNK_BYTES_MAX }) }), { maxLength: 10 })

const content = fc.oneof(
  fc
    .record({ consistency: fc.constantFrom(...CONSISTENCIES), digest: digests, chunks })
    .map((fields) => ({ kind: 'file' as const, ...fields, size: fields.chunks.reduce((sum, chunk) => sum + chunk.length, 0) })),
  fc.record({ kind: fc.constantFrom('directory' as const, 'fifo' as const, 'socket' as const) }),
  fc.record({ kind: fc.constant('symlink' as const), target: byteString({ maxLength: 4096 }) }),
  fc.record({ kind: fc.constantFrom('character-device' as const, 'block-device' as const), device: u64 }),
)

export const versions: fc.Arbitrary<Version> = fc.tuple(metadata, content).map(([shared, own]) => ({ ...shared, ...own }))

const mode = fc.constantFrom(...WATCH_MODES)
const kind = <Kind extends string>(value: Kind): fc.Arbitrary<Kind> => fc.constant(value)

const first: fc.Arbitrary<Change> = fc.record({
  kind: kind('epoch'),
  agent: labels,
  reason: fc.constantFrom(...EPOCH_REASONS),
  previousEpoch: counts,
  previousHash: digests,
  nonce: byteString({ minLength: 16, maxLength: 16 }),
})

const later: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ kind: kind('volume'), volume: labels, root: byteString({ maxLength: 4096 }), mode }),
  fc.record({ kind: kind('put'), volume: labels, path: paths, version: versions }),
  fc.record({ kind: kind('remove'), volume: labels, path: paths }),
  fc.record({ kind: kind('rename'), volume: labels, path: paths, to: paths }),
  fc.record({ kind: kind('sweep'), volume: labels, since: counts }),
  fc.record({ kind: kind('gap'), volume: labels, from: times, until: times, cause: text }),
  fc.record({ kind: kind('coverage'), volume: labels, from: times, until: times, mode }),
  fc.record({ kind: kind('mark'), volume: labels, name: text }),
  fc.record({ kind: kind('lost'), volume: labels, path: paths, lostSeq: counts }),
)

export const records: fc.Arbitrary<JournalRecord> = fc
  .tuple(
    fc.record({ previous: digests, epoch: positive, time: times }),
    fc.oneof(
      first.map((change) => ({ ...change, seq: 1 })),
      fc.tuple(later, fc.integer({ min: 2, max: Number.MAX_SAFE_INTEGER })).map(([change, seq]) => ({ ...change, seq })),
    ),
  )
  .map(([header, change]) => ({ ...header, ...change }))

const head = fc.record({ epoch: counts, seq: counts, hash: digests })
const short = fc.string({ unit: 'grapheme', maxLength: 20 })
const digestLists = fc.array(digests, { maxLength: 20 })
const size = fc.nat(CHUNK_BYTES_MAX)

export const messages: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ kind: kind('hello'), major: words, minor: words, agent: short, head, oldest: counts, time: times }),
  fc.record({
    kind: kind('welcome'),
    minor: words,
    acked: head,
    lastEpoch: counts,
    repository: short,
    chunkSizes: fc.record({ min: size, average: size, max: size }),
    windowBytes: counts,
    time: times,
  }),
  fc.record({ kind: kind('refuse'), code: short, message: short, lastEpoch: counts }),
  fc.record({ kind: kind('offer'), id: counts, digests: digestLists }),
  fc.record({ kind: kind('want'), id: counts, indices: fc.array(fc.nat(8191), { maxLength: 50 }) }),
  fc.record({
    kind: kind('chunk'),
    digest: digests,
    length: fc.integer({ min: 1, max: CHUNK_BYTES_MAX }),
    filtered: fc.boolean(),
    compressed: fc.boolean(),
    bytes: fc.uint8Array({ maxLength: 500 }),
  }),
  fc.record({ kind: kind('records'), records: fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 20 }) }),
  fc.record({ kind: kind('lost'), digests: digestLists }),
  fc.record({ kind: kind('ack'), head, time: times }),
  fc.record({ kind: kind('flow'), go: fc.boolean() }),
  fc.record({
    kind: kind('coverage'),
    until: times,
    head: counts,
    pending: counts,
    spoolBytes: counts,
    volumes: fc.array(
      fc.record({ name: short, mode, reason: short, state: fc.constantFrom('scanning' as const, 'watching' as const, 'paused' as const) }),
      { maxLength: 5 },
    ),
  }),
  fc.record({ kind: kind('barrier'), id: counts, volume: short }),
  fc.record({ kind: kind('barrier'), id: counts, volume: short, mark: short }),
  fc.record({ kind: kind('barrier-done'), id: counts, epoch: counts, seq: counts, error: short }),
  fc.record({
    kind: kind('ask'),
    id: words,
    digest: digests,
    length: fc.integer({ min: 1, max: CHUNK_BYTES_MAX }),
    spots: fc.array(fc.record({ volume: labels, path: paths, offset: counts }), { minLength: 1, maxLength: ASKED_SPOTS_MAX }),
  }),
  fc.record({
    kind: kind('answer'),
    id: words,
    length: fc.integer({ min: 1, max: CHUNK_BYTES_MAX }),
    filtered: fc.boolean(),
    compressed: fc.boolean(),
    bytes: fc.uint8Array({ maxLength: 500 }),
  }),
)
