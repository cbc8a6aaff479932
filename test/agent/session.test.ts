import { describe, expect, it } from 'vitest'
import type { StoredChunk } from '../../agent/capture-thread.ts'
import type { ChunkSpot } from '../../agent/delivery.ts'
import type { Journal } from '../../agent/journal.ts'
import { Session, type SessionParts } from '../../agent/session.ts'
import { HybridClock, systemClock, TIME_ZERO } from '../../shared/clock.ts'
import { type Digest, digestOf } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { ASKS_MAX } from '../../shared/limits.ts'
import { Link } from '../../shared/link.ts'
import { label, relativePath } from '../../shared/path.ts'
import type { Change } from '../../shared/record.ts'
import { storedForm } from '../../shared/stored-form.ts'
import { AGENT, chunkOf, FIRST, fileVersion, openJournal, put, VOLUME } from '../support/agent-parts.ts'
import { FakeCollector } from '../support/fake-collector.ts'
import { messagePipe } from '../support/message-pipe.ts'
import { noisySlope } from '../support/pixels.ts'
import { scratchDirectory } from '../support/scratch.ts'

/** An agent reduced to its journal and the content in hand. */
class Side {
  readonly journal: Journal
  readonly content = new Map<Digest, StoredChunk>()
  readonly proved: string[] = []
  readonly acks: number[] = []
  readonly looked: ChunkSpot[] = []
  canProve = true
  /** Its disk does not answer. */
  isHanging = false

  constructor(journal: Journal) {
    this.journal = journal
  }

  static async open(directory = scratchDirectory()): Promise<Side> {
    const side = new Side(await openJournal(directory))
    if (side.journal.head.seq === 0) await side.journal.append([FIRST])
    return side
  }

  /** Journals a file made of these parts, whose content is in hand. */
  async write(name: string, ...parts: string[]): Promise<void> {
    for (const { digest, chunk } of parts.map(chunkOf)) this.content.set(digest, chunk)
    await this.journal.append([put(name, fileVersion(parts))])
  }

  session(link: Link): Session {
    const parts: SessionParts = {
      agent: AGENT,
      journal: this.journal,
      clock: new HybridClock(systemClock),
      read: async ({ chunk, spots }) => {
        if (this.isHanging) await new Promise(() => {})
        const found = this.content.get(chunk.digest)
        if (found !== undefined) this.looked.push(...spots)
        return found
      },
      declareLost: async (versions) => {
        await this.journal.append(versions.map(({ volume, path, seq }): Change => ({ kind: 'lost', volume, path, lostSeq: seq })))
      },
      onWelcome() {},
      onAck: (repository, head) => {
        this.journal.ack(repository, head)
        this.acks.push(head.seq)
      },
      prove: (volume) => {
        this.proved.push(volume)
        return this.canProve ? Promise.resolve() : Promise.reject(new PacsimileError('incomplete', 'it is paused'))
      },
      setMark: async (volume, name) => {
        const entries = await this.journal.append([{ kind: 'mark', volume: label(volume, 'The volume'), name }])
        return entries.map(({ record }) => record)
      },
      report: () => ({ until: TIME_ZERO, head: this.journal.head.seq, pending: 0, spoolBytes: 0, volumes: [] }),
    }
    return new Session(link, parts)
  }

  /** One session until `during` has ended, or it fails. @returns how it ended */
  async meet(collector: FakeCollector, during: () => Promise<void>, welcome: Parameters<FakeCollector['serve']>[1] = {}): Promise<unknown> {
    const [mine, theirs] = messagePipe()
    const stop = new AbortController()
    const serving = collector.serve(theirs, welcome)
    const running = this.session(new Link(mine))
      .run(stop.signal)
      .catch((error: unknown) => error)
    await Promise.race([during(), running])
    stop.abort()
    await serving
    return running
  }
}

const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20))

describe('a session', () => {
  it('delivers what is journalled, content first, and what comes meanwhile', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    await side.write('a', 'one', 'two')
    await side.meet(collector, async () => {
      await collector.until(() => collector.seq === 2)
      await side.write('b', 'three', 'two')
      await expect.poll(() => side.acks.at(-1)).toBe(3)
    })
    expect(collector.records.map(({ kind }) => kind)).toEqual(['epoch', 'put', 'put'])
    expect([...collector.chunks.values()].map(String)).toEqual(['one', 'two', 'three'])
  })

  it('takes no welcome for an ack that says that what is durable is not held yet', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    collector.isAcking = false
    await side.write('a', 'one')
    await side.meet(collector, () => collector.until(() => collector.seq === 2))
    const before = [...side.acks]
    await side.meet(collector, tick, { isHeld: false })
    expect(side.acks).toEqual(before)
    expect(side.journal.acked(collector.repository).seq).toBe(0)
    await side.meet(collector, tick)
    expect(side.acks).toEqual([...before, 2])
  })

  it.each([0, 1])('sends filtered content only where it is understood: to a collector of minor version %i', async (minor) => {
    const side = await Side.open()
    const collector = new FakeCollector()
    const plain = noisySlope(64, 64)
    const stored = storedForm(plain, { width: 2, isBigEndian: false, stride: 1, lead: 0 })
    expect(stored.filtered).toBe(true)
    const digest = digestOf(plain)
    side.content.set(digest, { length: plain.length, ...stored })
    await side.journal.append([
      put('image', { ...fileVersion([]), size: plain.length, digest, chunks: [{ digest, length: plain.length }] }),
    ])
    await side.meet(collector, () => collector.until(() => collector.seq === 2), { minor })
    expect(collector.chunks.get(digest)).toEqual(plain)
    expect(collector.filtered.has(digest)).toBe(minor > 0)
  })

  it('goes on after a lost connection, from what was acknowledged', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    await side.write('a', 'one')
    await side.meet(collector, () => collector.until(() => collector.seq === 2))
    await side.write('b', 'two')
    await side.meet(collector, () => collector.until(() => collector.seq === 3))
    expect(collector.records.map(({ seq }) => seq)).toEqual([1, 2, 3])
  })

  it('sends no more than the window before an ack, but always one delivery', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    collector.windowBytes = 10
    collector.isAcking = false
    await side.meet(collector, async () => {
      await collector.until(() => collector.seq === 1)
      await side.write('a', 'x'.repeat(1000))
      await side.write('b', 'y'.repeat(1000))
      await tick()
      expect(collector.seq).toBe(1)
      await collector.ack()
      await collector.until(() => collector.seq >= 2)
      expect(collector.chunks.size).toBeGreaterThan(0)
      collector.isAcking = true
      await collector.ack()
      await collector.until(() => collector.seq === 3)
    })
  })

  it('sends nothing while it is told to wait', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    await side.meet(collector, async () => {
      await collector.until(() => collector.seq === 1)
      await collector.send({ kind: 'flow', go: false })
      await tick()
      await side.write('a', 'one')
      await tick()
      expect(collector.chunks.size).toBe(0)
      await collector.send({ kind: 'flow', go: true })
      await collector.until(() => collector.seq === 2)
    })
  })

  it('declares lost, in the journal first, what can no longer be read, and goes on', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    await side.write('a', 'one', 'two')
    side.content.delete(chunkOf('two').digest)
    await side.write('b', 'three')
    await side.meet(collector, () => collector.until(() => collector.seq === 4))
    expect(collector.records.at(-1)).toMatchObject({ kind: 'lost', path: 'a', lostSeq: 2 })
    expect([...collector.lost]).toEqual([chunkOf('two').digest])
    expect([...collector.chunks.values()].map(String)).toEqual(['one', 'three'])
  })

  it('reads what was lost from a later version that still has it', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    await side.write('a', 'one')
    side.content.clear()
    await side.meet(collector, async () => {
      await collector.until(() => collector.lost.size === 1)
      await side.write('b', 'one')
      await collector.until(() => collector.records.some((record) => record.kind === 'put' && record.path === 'b'))
    })
    expect([...collector.chunks.values()].map(String)).toEqual(['one'])
    expect(collector.records.filter(({ kind }) => kind === 'lost')).toHaveLength(1)
  })

  it('gives content that it is asked for, where it is to be had, and of too many questions at once only some', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    const { digest, chunk } = chunkOf('two')
    side.content.set(digest, chunk)
    const ask = (id: number, name: Digest): Promise<void> =>
      collector.send({ kind: 'ask', id, digest: name, length: 3, spots: [{ volume: VOLUME, path: relativePath('a'), offset: 7 }] })
    await side.meet(collector, async () => {
      await collector.until(() => collector.seq === 1)
      await ask(1, digest)
      await ask(2, chunkOf('six').digest)
      await collector.until(() => collector.answers.length === 2)
      expect(side.looked).toEqual([{ place: { volume: VOLUME, path: 'a' }, offset: 7 }])
      expect(collector.answers.map(({ id, length }) => [id, length])).toEqual([
        [1, 3],
        [2, 0],
      ])
      expect(collector.answers.map(({ bytes }) => Buffer.from(bytes).toString())).toEqual(['two', ''])
      side.isHanging = true
      for (let id = 3; id <= 3 + ASKS_MAX; id++) await ask(id, digest)
      // The last one is not kept waiting for the others.
      await collector.until(() => collector.answers.length === 3)
      expect(collector.answers[2]).toMatchObject({ id: 3 + ASKS_MAX, length: 0 })
    })
  })

  it.each([
    ['holds a later epoch', { lastEpoch: 5 }, 'rewound', 5],
    ['holds more of this epoch than there is', { acked: { epoch: 1, seq: 9, hash: digestOf(Buffer.from('9')) } }, 'rewound', 1],
    ['holds another record', { acked: { epoch: 1, seq: 1, hash: digestOf(Buffer.from('other')) } }, 'forked', 1],
  ])('ends the epoch when the collector %s', async (_, welcome, reason, above) => {
    const side = await Side.open()
    const ended = await side.meet(new FakeCollector(), () => new Promise(() => {}), welcome)
    expect(ended).toMatchObject({ reason, above })
  })

  it('ends the epoch when the collector lacks records that are gone here', async () => {
    const side = await Side.open()
    for (const name of ['a', 'b', 'c']) await side.write(name, name)
    side.journal.ack('elsewhere', { epoch: 1, seq: 4, hash: side.journal.head.hash })
    await side.journal.trim('elsewhere')
    expect(await side.meet(new FakeCollector(), () => new Promise(() => {}))).toMatchObject({ reason: 'forked' })
  })

  it.each([
    ['refuses it as forked', { kind: 'refuse', code: 'forked', message: 'no', lastEpoch: 3 }, { reason: 'rewound', above: 3 }],
    ['does not trust it', { kind: 'refuse', code: 'not-trusted', message: 'no', lastEpoch: 0 }, { code: 'not-trusted' }],
    [
      'acknowledges what was not sent',
      { kind: 'ack', head: { epoch: 1, seq: 7, hash: digestOf(Buffer.from('x')) }, time: TIME_ZERO },
      { code: 'protocol' },
    ],
    [
      'acknowledges another record',
      { kind: 'ack', head: { epoch: 1, seq: 1, hash: digestOf(Buffer.from('x')) }, time: TIME_ZERO },
      { reason: 'forked' },
    ],
    ['wants what was not offered', { kind: 'want', id: 99, indices: [0] }, { code: 'protocol' }],
    ['sends what is not its to send', { kind: 'offer', id: 1, digests: [] }, { code: 'protocol' }],
  ] as const)('ends when the collector %s', async (_, message, expected) => {
    const side = await Side.open()
    const collector = new FakeCollector()
    const ended = await side.meet(collector, async () => {
      await collector.until(() => collector.seq === 1)
      await collector.send(message)
      await new Promise(() => {})
    })
    expect(ended).toMatchObject(expected)
  })

  it('answers barriers with its head, or with the reason why it cannot', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    await side.write('a', 'one')
    await side.meet(collector, async () => {
      await collector.until(() => collector.seq === 2)
      await collector.send({ kind: 'barrier', id: 7, volume: 'images' })
      await collector.until(() => collector.barriers.length === 1)
      side.canProve = false
      await collector.send({ kind: 'barrier', id: 8, volume: '' })
      await collector.until(() => collector.barriers.length === 2)
    })
    expect(side.proved).toEqual(['images', ''])
    expect(collector.barriers).toMatchObject([
      { id: 7, epoch: 1, seq: 2, error: '' },
      { id: 8, error: 'it is paused' },
    ])
  })

  it('answers a barrier that asks for a mark with the position of the mark, whatever comes behind it', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    await side.meet(collector, async () => {
      await collector.until(() => collector.seq === 1)
      await collector.send({ kind: 'barrier', id: 1, volume: 'images', mark: 'before-upgrade' })
      await collector.until(() => collector.barriers.length === 1)
      await collector.send({ kind: 'barrier', id: 2, volume: 'images', mark: 'No Label' })
      await collector.until(() => collector.barriers.length === 2)
    })
    const [marked, refused] = collector.barriers
    expect(marked).toMatchObject({ id: 1, seq: 2, error: '' })
    expect(refused).toMatchObject({ id: 2, error: expect.stringContaining('No Label') as string })
  })

  it('delivers many records in order, in few messages', async () => {
    const side = await Side.open()
    const collector = new FakeCollector()
    const changes = Array.from({ length: 5000 }, (_, i) => {
      const { digest, chunk } = chunkOf(`content ${i % 700}`)
      side.content.set(digest, chunk)
      return put(`f${i}`, fileVersion(`content ${i % 700}`))
    })
    await side.journal.append(changes)
    await side.meet(collector, () => collector.until(() => collector.seq === 5001))
    expect(collector.chunks.size).toBe(700)
    expect(collector.heard.filter((kind) => kind === 'records').length).toBeLessThan(20)
  })
})
