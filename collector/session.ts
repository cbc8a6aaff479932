/**
 * One agent's session at the collector: handshake, then messages in, acks out (docs/protocol.md).
 *
 * Invariant: nothing of a message is believed before it was checked, and whatever breaks the protocol ends this session
 * and changes nothing else. It prevents one bad agent from harming another, or what is already stored.
 */
import type { HybridClock } from '../shared/clock.ts'
import { type Digest, NO_DIGEST } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { WINDOW_BYTES } from '../shared/limits.ts'
import type { Link } from '../shared/link.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { ChunkRef } from '../shared/version.ts'
import { type AskedSpot, type ChainHead, type Message, MINOR_WITH_ASK, PROTOCOL_MAJOR, PROTOCOL_MINOR } from '../shared/wire.ts'
import { AskedChunks } from './asked-chunks.ts'
import type { Ingest } from './ingest.ts'
import type { IngestSession } from './ingest-item.ts'
import type { RepositoryDescription } from './repository/repository.ts'

const HELLO_MS_MAX = 10_000
/** Digests that one session may declare lost. */
const LOST_MAX = 1 << 20

export type CoverageMessage = Extract<Message, { kind: 'coverage' }>
type HelloMessage = Extract<Message, { kind: 'hello' }>

interface Barrier {
  resolve(position: Position): void
  reject(error: PacsimileError): void
}

export interface SessionParts {
  readonly agent: Label
  readonly link: Link
  readonly ingest: Ingest
  readonly clock: HybridClock
  readonly repository: RepositoryDescription
  readonly log: Log
}

export class Session implements IngestSession {
  readonly agent: Label
  readonly since = Date.now()
  readonly lost = new Set<Digest>()
  readonly #parts: SessionParts
  readonly #barriers = new Map<number, Barrier>()
  readonly #asked: AskedChunks
  #lastBarrier = 0
  #coverage: CoverageMessage | undefined
  #skewMs = 0
  #peerMinor = 0
  #ready = false
  #failed = false

  constructor(parts: SessionParts) {
    this.agent = parts.agent
    this.#parts = parts
    this.#asked = new AskedChunks(parts.agent, (message) => parts.link.send(message))
  }

  /** The agent's last word on itself. */
  get coverage(): CoverageMessage | undefined {
    return this.#coverage
  }

  /** How far the agent's clock is ahead of ours, in ms. */
  get skewMs(): number {
    return this.#skewMs
  }

  /** Whether the handshake is done. */
  get isReady(): boolean {
    return this.#ready
  }

  /** Runs until the session ends. Never throws: why it ended is logged. */
  async run(): Promise<void> {
    const { link, log } = this.#parts
    try {
      await this.#greet()
      for (let message = await link.receive(); message !== undefined; message = await link.receive()) await this.#take(message)
      if (!this.#failed) log.info('agent disconnected', { agent: this.agent, reason: link.ended?.message })
    } catch (error) {
      const failure = asPacsimileError(error, `Session of ${this.agent}`)
      log.warn('agent session ended', { agent: this.agent, code: failure.code, reason: failure.message })
      await this.#refuse(failure)
    } finally {
      for (const barrier of this.#barriers.values())
        barrier.reject(new PacsimileError('agent-unreachable', `Agent ${this.agent} disconnected`))
      this.#barriers.clear()
      this.#asked.end()
    }
  }

  async #refuse(error: PacsimileError): Promise<void> {
    const { link, ingest } = this.#parts
    if (!link.isOpen) return
    try {
      await link.send({
        kind: 'refuse',
        code: error.code,
        message: error.message.slice(0, 500),
        lastEpoch: ingest.chainEnd(this.agent)?.epoch ?? 0,
      })
    } catch {
      // The link went away while it was being told so; there is nobody left to tell.
    }
    link.fail(error)
  }

  async #greet(): Promise<void> {
    const { link, ingest, clock, repository, log } = this.#parts
    const timer = setTimeout(() => link.fail(new PacsimileError('protocol', `No hello within ${HELLO_MS_MAX / 1000} s`)), HELLO_MS_MAX)
    const hello = await link.receive().finally(() => clearTimeout(timer))
    if (hello === undefined) throw link.ended ?? new PacsimileError('protocol', 'The session ended before it began')
    if (hello.kind !== 'hello') throw new PacsimileError('protocol', `A session begins with hello, not with ${hello.kind}`)
    if (hello.major !== PROTOCOL_MAJOR)
      throw new PacsimileError(
        'version-refused',
        `The agent speaks protocol ${hello.major}.${hello.minor}, this collector ${PROTOCOL_MAJOR}.${PROTOCOL_MINOR}`,
      )
    if (hello.agent !== this.agent)
      throw new PacsimileError('not-trusted', `The certificate is of agent ${this.agent}, the hello of ${hello.agent}`)
    this.#skewMs = clock.observe(hello.time)
    this.#peerMinor = hello.minor
    const acked = this.#ackedFor(hello)
    const isHeld = ingest.isHeld
    await link.send({
      kind: 'welcome',
      minor: PROTOCOL_MINOR,
      acked,
      lastEpoch: ingest.chainEnd(this.agent)?.epoch ?? 0,
      repository: repository.id,
      chunkSizes: repository.chunkSizes,
      windowBytes: WINDOW_BYTES,
      time: clock.tick(),
      ...(isHeld ? {} : { isHeld }),
    })
    this.#ready = true
    if (!isHeld && acked.seq > 0) ingest.acknowledge(this, acked)
    log.info('agent connected', {
      agent: this.agent,
      epoch: hello.head.epoch,
      head: hello.head.seq,
      acked: acked.seq,
      clockSkewMs: this.#skewMs,
    })
  }

  /** What is durable here of the agent's epoch. @throws forked when its journal cannot go on from there */
  #ackedFor(hello: HelloMessage): ChainHead {
    const { epoch } = hello.head
    const end = this.#parts.ingest.chainEnd(this.agent)
    if (end !== undefined && end.epoch > epoch)
      throw new PacsimileError('forked', `Epoch ${epoch} of ${this.agent} is over; the repository holds epoch ${end.epoch}`)
    const acked = end !== undefined && end.epoch === epoch ? { epoch, seq: end.seq, hash: end.hash } : { epoch, seq: 0, hash: NO_DIGEST }
    if (hello.oldest > acked.seq + 1)
      throw new PacsimileError(
        'forked',
        `${this.agent} can send from seq ${hello.oldest} on, the repository ends at ${acked.seq}: the records between are in neither place`,
      )
    return acked
  }

  async #take(message: Message): Promise<void> {
    const { link, ingest } = this.#parts
    switch (message.kind) {
      case 'offer':
        await link.send({
          kind: 'want',
          id: message.id,
          indices: message.digests.flatMap((name, i) => (ingest.hasChunk(this.agent, name) ? [] : [i])),
        })
        return
      case 'chunk':
        await this.#submit({ session: this, chunk: message })
        return
      case 'records':
        await this.#submit({ session: this, records: message.records })
        return
      case 'lost':
        for (const name of message.digests) this.lost.add(name)
        if (this.lost.size > LOST_MAX) throw new PacsimileError('protocol', 'Too many chunks declared lost in one session')
        return
      case 'coverage':
        this.#coverage = message
        return
      case 'barrier-done':
        this.#endBarrier(message)
        return
      case 'answer':
        this.#asked.take(message)
        return
      default:
        throw new PacsimileError('protocol', `A ${message.kind} message is not the agent's to send now`)
    }
  }

  async #submit(item: Parameters<Ingest['submit']>[0]): Promise<void> {
    const { link, ingest } = this.#parts
    const crowded = ingest.isCrowded
    if (crowded) await link.send({ kind: 'flow', go: false })
    await ingest.submit(item)
    if (crowded) await link.send({ kind: 'flow', go: true })
  }

  committed(head: ChainHead): void {
    const { link, clock } = this.#parts
    if (!link.isOpen) return
    link.send({ kind: 'ack', head, time: clock.tick() }).catch(() => {
      // The link ended; the agent learns of this commit by the next welcome.
    })
  }

  failed(error: PacsimileError): void {
    if (this.#failed) return
    this.#failed = true
    this.#parts.log.warn('agent session ended', { agent: this.agent, code: error.code, reason: error.message })
    void this.#refuse(error)
  }

  /**
   * Resolves with the agent's head once it has journalled everything that changed before this call, and behind it the mark, where one
   * is asked for; an agent of release 0.1 sets none. @throws agent-unreachable, incomplete
   */
  barrier(volume: string, mark?: Label): Promise<Position> {
    const id = ++this.#lastBarrier
    return new Promise((resolve, reject) => {
      this.#barriers.set(id, { resolve, reject })
      this.#parts.link.send({ kind: 'barrier', id, volume, ...(mark === undefined ? {} : { mark }) }).catch((error: unknown) => {
        this.#barriers.delete(id)
        reject(asPacsimileError(error, `Asking agent ${this.agent}`))
      })
    })
  }

  /**
   * Content that the agent's files may still hold, or that it has not had acknowledged yet; undefined where it is not to be had any more.
   * @throws unsupported where the agent is of an earlier release, agent-unreachable, timeout
   */
  ask(chunk: ChunkRef, spots: readonly AskedSpot[]): Promise<Buffer | undefined> {
    if (this.#peerMinor >= MINOR_WITH_ASK) return this.#asked.ask(chunk, spots)
    const speaks = `it speaks protocol ${PROTOCOL_MAJOR}.${this.#peerMinor}`
    return Promise.reject(new PacsimileError('unsupported', `Agent ${this.agent} cannot be asked for content: ${speaks}`))
  }

  #endBarrier(message: Extract<Message, { kind: 'barrier-done' }>): void {
    const barrier = this.#barriers.get(message.id)
    if (barrier === undefined) return
    this.#barriers.delete(message.id)
    if (message.error === '') barrier.resolve({ epoch: message.epoch, seq: message.seq })
    else barrier.reject(new PacsimileError('incomplete', `Agent ${this.agent}: ${message.error}`))
  }

  /** Another session of the same agent has taken over. */
  supersede(): void {
    this.#parts.link.fail(new PacsimileError('protocol', 'A newer session of this agent has begun'))
  }

  close(): void {
    this.#parts.link.close()
  }
}
