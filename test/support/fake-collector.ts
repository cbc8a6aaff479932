/** The other end of an agent's session: a collector that keeps what it is sent in memory, and does what a test tells it. */
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import { startOfMillisecond } from '../../shared/clock.ts'
import { type Digest, digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { WINDOW_BYTES } from '../../shared/limits.ts'
import { Link, type MessageSocket } from '../../shared/link.ts'
import { decodeRecord, type JournalRecord, recordHash } from '../../shared/record.ts'
import { plainOf } from '../../shared/stored-form.ts'
import type { ChainHead, Message } from '../../shared/wire.ts'

type MessageOf<Kind extends Message['kind']> = Extract<Message, { kind: Kind }>

export class FakeCollector {
  /** What it holds; survives its sessions. */
  readonly records: JournalRecord[] = []
  readonly chunks = new Map<Digest, Buffer>()
  readonly lost = new Set<Digest>()
  /** Of the chunks, those that came filtered. */
  readonly filtered = new Set<Digest>()
  readonly repository = 'repository1'
  /** Every message that came, in order, without content. */
  readonly heard: Message['kind'][] = []
  windowBytes = WINDOW_BYTES
  isAcking = true
  #head: ChainHead = { epoch: 1, seq: 0, hash: NO_DIGEST }
  #link: Link | undefined
  readonly #waiting: { readonly isMet: () => boolean; readonly resolve: () => void }[] = []
  readonly barriers: MessageOf<'barrier-done'>[] = []
  readonly answers: MessageOf<'answer'>[] = []

  /** Serves one session, from its welcome (which may be another than the right one) to its end. */
  async serve(socket: MessageSocket, welcome: Partial<MessageOf<'welcome'>> = {}): Promise<void> {
    const link = new Link(socket)
    this.#link = link
    const hello = await link.receive()
    if (hello?.kind !== 'hello') throw new Error('no hello')
    const acked = hello.head.epoch === this.#head.epoch ? this.#head : { epoch: hello.head.epoch, seq: 0, hash: NO_DIGEST }
    await link.send({
      kind: 'welcome',
      minor: 0,
      acked,
      lastEpoch: acked.epoch,
      repository: this.repository,
      chunkSizes: DEFAULT_CHUNK_SIZES,
      windowBytes: this.windowBytes,
      time: startOfMillisecond(Date.now()),
      ...welcome,
    })
    for (let message = await link.receive(); message !== undefined; message = await link.receive()) {
      await this.#take(link, message)
      this.heard.push(message.kind)
      for (const { isMet, resolve } of this.#waiting) if (isMet()) resolve()
    }
  }

  async #take(link: Link, message: Message): Promise<void> {
    switch (message.kind) {
      case 'offer':
        await link.send({
          kind: 'want',
          id: message.id,
          indices: message.digests.flatMap((digest, i) => (this.chunks.has(digest) ? [] : [i])),
        })
        return
      case 'chunk': {
        const plain = plainOf(message, message.length)
        if (digestOf(plain) !== message.digest || plain.length !== message.length) throw new Error('a chunk that is not what it says')
        this.chunks.set(message.digest, plain)
        if (message.filtered) this.filtered.add(message.digest)
        return
      }
      case 'lost':
        for (const digest of message.digests) this.lost.add(digest)
        return
      case 'records':
        for (const bytes of message.records) this.#append(bytes)
        if (this.isAcking) await this.ack()
        return
      case 'barrier-done':
        this.barriers.push(message)
        return
      case 'answer':
        this.answers.push(message)
        return
      default:
    }
  }

  #append(bytes: Uint8Array): void {
    const record = decodeRecord(bytes)
    if (record.seq !== this.#head.seq + 1 || record.previous !== this.#head.hash)
      throw new Error(`record ${record.seq} after ${this.#head.seq}`)
    const chunks = record.kind === 'put' && record.version.kind === 'file' ? record.version.chunks : []
    for (const { digest } of chunks)
      if (!this.chunks.has(digest) && !this.lost.has(digest)) throw new Error(`record ${record.seq} before its content`)
    this.records.push(record)
    this.#head = { epoch: record.epoch, seq: record.seq, hash: recordHash(bytes) }
  }

  get seq(): number {
    return this.#head.seq
  }

  async ack(): Promise<void> {
    await this.#link?.send({ kind: 'ack', head: this.#head, time: startOfMillisecond(Date.now()) })
  }

  async send(message: Message): Promise<void> {
    await this.#link?.send(message)
  }

  /** Resolves when the condition holds after a message. */
  async until(isMet: () => boolean): Promise<void> {
    if (!isMet()) await new Promise<void>((resolve) => this.#waiting.push({ isMet, resolve }))
  }

  disconnect(): void {
    this.#link?.close()
  }
}
