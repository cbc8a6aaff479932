/**
 * One session with a collector, from hello to the end of the connection: this agent's half of the protocol (docs/protocol.md).
 *
 * Order: offer digests, await what is wanted, send those chunks, send the records; several deliveries are under way at
 * once, within the collector's window. Content that can no longer be read is declared lost in the journal first, then on the
 * wire, then its records go on. Invariant: an ack is believed only if it carries the hash that this journal has at that seq.
 * It prevents an agent whose state was copied or set back from continuing, or overwriting, a history that is not its own.
 */
import type { HybridClock } from '../shared/clock.ts'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError, reasonOf } from '../shared/errors.ts'
import { ASKS_MAX, KNOWN_DIGESTS_MAX, OFFER_DIGESTS_MAX, SESSION_BATCHES_MAX } from '../shared/limits.ts'
import type { Link } from '../shared/link.ts'
import { type Label, label } from '../shared/path.ts'
import { plainOf, storedForm } from '../shared/stored-form.ts'
import { type ChainHead, type Message, MINOR_WITH_FILTER } from '../shared/wire.ts'
import type { StoredChunk } from './capture-thread.ts'
import { type ChunkSource, Delivery } from './delivery.ts'
import { EpochOver, greet, refusal, type WelcomeMessage } from './handshake.ts'
import type { Journal } from './journal.ts'
import { readMoments } from './moments.ts'
import type { Place } from './place.ts'
import { SendWindow } from './send-window.ts'
import { sleep, Waiters } from './waiting.ts'

export type CoverageMessage = Extract<Message, { kind: 'coverage' }>

export interface SessionParts {
  readonly agent: Label
  readonly journal: Journal
  readonly clock: HybridClock
  /** The chunk's content, from wherever it still is. */
  readonly read: (source: ChunkSource) => Promise<StoredChunk | undefined>
  /** Journals durably that the content of these versions is lost. */
  readonly declareLost: (versions: readonly (Place & { readonly seq: number })[]) => Promise<void>
  readonly onWelcome: (welcome: WelcomeMessage, leadMs: number) => void
  readonly onAck: (repository: string, head: ChainHead) => void
  /** Resolves when everything that changed before the call is journalled. */
  readonly prove: (volume: string) => Promise<void>
  /** The same, and a mark behind it. */
  readonly setMark: (volume: string, name: Label) => Promise<readonly { readonly seq: number }[]>
  readonly report: () => Omit<CoverageMessage, 'kind'>
}

interface Prepared {
  readonly delivery: Delivery
  /** The chunks to send, when the collector has said so. */
  readonly wanted: Promise<ChunkSource[]>
}

/** Chunks read ahead of the one that is being sent. */
const READ_AHEAD = 4
const REPORT_MS = 2000
/** The answer where content is not to be had. */
const NOTHING: StoredChunk = { length: 0, filtered: false, compressed: false, bytes: new Uint8Array(0) }

export class Session {
  readonly #parts: SessionParts
  readonly #link: Link
  readonly #changed = new Waiters()
  readonly #prepared: Prepared[] = []
  readonly #offers = new Map<number, { readonly sources: readonly ChunkSource[]; readonly resolve: (wanted: ChunkSource[]) => void }>()
  /** What the collector has, or will have before the records that are prepared next. Oldest first. */
  readonly #known = new Set<Digest>()
  readonly #lost = new Set<Digest>()
  #window = new SendWindow(0)
  #sentSeq = 0
  #peerMinor = 0
  #lastOffer = 0
  /** Questions for content that are not answered yet. */
  #asks = 0

  constructor(link: Link, parts: SessionParts) {
    this.#link = link
    this.#parts = parts
  }

  /** Until the connection ends or the signal is given. @throws EpochOver, not-trusted, version-refused, protocol, damage */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#link.close()
    signal.addEventListener('abort', stop, { once: true })
    try {
      const welcome = await greet(this.#link, this.#parts)
      const { repository, acked } = welcome
      this.#window = new SendWindow(welcome.windowBytes)
      this.#sentSeq = acked.seq
      this.#peerMinor = welcome.minor
      this.#parts.onWelcome(welcome, this.#parts.clock.observe(welcome.time))
      if (welcome.isHeld !== false) this.#parts.onAck(repository, acked)
      await this.#converse(repository, signal)
    } finally {
      signal.removeEventListener('abort', stop)
      this.#link.close()
    }
  }

  async #converse(repository: string, signal: AbortSignal): Promise<void> {
    const ending = new AbortController()
    const inner = AbortSignal.any([signal, ending.signal])
    const parts = [this.#prepare(inner), this.#deliver(inner), this.#report(inner), this.#listen(repository)]
    try {
      // The first part that ends, ends the session.
      await Promise.race(parts)
    } finally {
      ending.abort()
      this.#link.close()
      // Nobody will answer these any more.
      for (const { resolve } of this.#offers.values()) resolve([])
      await Promise.allSettled(parts)
    }
  }

  /** Offers the chunks of what is journalled, ahead of their sending. */
  async #prepare(signal: AbortSignal): Promise<void> {
    const { journal } = this.#parts
    let nextSeq = this.#sentSeq + 1
    while (!signal.aborted) {
      await journal.waitBeyond(nextSeq - 1, signal)
      if (signal.aborted) return
      const entries = await readMoments(journal, nextSeq)
      for (const delivery of Delivery.of(entries)) {
        while (this.#prepared.length >= SESSION_BATCHES_MAX && !signal.aborted) await this.#changed.wait(signal)
        if (signal.aborted) return
        await this.#offer(delivery)
      }
      nextSeq += entries.length
    }
  }

  async #offer(delivery: Delivery): Promise<void> {
    const sources = delivery.sources((digest) => this.#known.has(digest))
    const wanted: Promise<ChunkSource[]>[] = []
    for (let at = 0; at < sources.length; at += OFFER_DIGESTS_MAX) {
      const offered = sources.slice(at, at + OFFER_DIGESTS_MAX)
      const digests = offered.map(({ chunk }) => chunk.digest)
      for (const digest of digests) this.#remember(digest)
      const id = ++this.#lastOffer
      wanted.push(new Promise((resolve) => this.#offers.set(id, { sources: offered, resolve })))
      await this.#link.send({ kind: 'offer', id, digests })
    }
    this.#prepared.push({ delivery, wanted: Promise.all(wanted).then((lists) => lists.flat()) })
    this.#changed.wake()
  }

  #remember(digest: Digest): void {
    this.#known.add(digest)
    if (this.#known.size <= KNOWN_DIGESTS_MAX) return
    const [oldest] = this.#known
    if (oldest !== undefined) this.#known.delete(oldest)
  }

  async #deliver(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const [next] = this.#prepared
      if (next === undefined) {
        await this.#changed.wait(signal)
        continue
      }
      const wanted = await next.wanted
      if (signal.aborted) return
      await this.#send(next.delivery, wanted, signal)
      this.#prepared.shift()
      this.#changed.wake()
    }
  }

  async #send(delivery: Delivery, wanted: readonly ChunkSource[], signal: AbortSignal): Promise<void> {
    // What an earlier delivery could not read, this one's file may still hold.
    const retried = this.#lost.size === 0 ? [] : delivery.sources((digest) => !this.#lost.has(digest))
    const missing = new Set<Digest>()
    for await (const { source, stored } of this.#readAhead([...wanted, ...retried])) {
      const { digest } = source.chunk
      if (stored === undefined) {
        missing.add(digest)
        continue
      }
      await this.#roomToSend(signal)
      if (signal.aborted) return
      this.#lost.delete(digest)
      this.#window.add(stored.bytes.length)
      await this.#link.send({ kind: 'chunk', digest, ...this.#understood(stored) })
    }
    if (missing.size > 0) await this.#declareLost(delivery, missing)
    await this.#roomToSend(signal)
    if (signal.aborted) return
    this.#window.add(delivery.bytes)
    this.#window.end(delivery.head)
    this.#sentSeq = delivery.lastSeq
    await this.#link.send({ kind: 'records', records: delivery.entries.map((entry) => entry.bytes) })
  }

  /** A collector of an earlier minor version does not know the filter. */
  #understood(stored: StoredChunk): StoredChunk {
    if (!stored.filtered || this.#peerMinor >= MINOR_WITH_FILTER) return stored
    return { length: stored.length, ...storedForm(plainOf(stored, stored.length), undefined) }
  }

  async *#readAhead(
    sources: readonly ChunkSource[],
  ): AsyncGenerator<{ readonly source: ChunkSource; readonly stored: StoredChunk | undefined }, void> {
    const reading = sources.slice(0, READ_AHEAD).map((source) => this.#parts.read(source))
    for (const [i, source] of sources.entries()) {
      const stored = await reading.shift()
      const ahead = sources[i + READ_AHEAD]
      if (ahead !== undefined) reading.push(this.#parts.read(ahead))
      yield { source, stored }
    }
  }

  async #roomToSend(signal: AbortSignal): Promise<void> {
    while (!this.#window.hasRoom && !signal.aborted) await this.#changed.wait(signal)
  }

  async #declareLost(delivery: Delivery, missing: ReadonlySet<Digest>): Promise<void> {
    await this.#parts.declareLost(delivery.naming(missing))
    for (const digest of missing) this.#lost.add(digest)
    const digests = [...missing]
    for (let at = 0; at < digests.length; at += OFFER_DIGESTS_MAX)
      await this.#link.send({ kind: 'lost', digests: digests.slice(at, at + OFFER_DIGESTS_MAX) })
  }

  async #listen(repository: string): Promise<void> {
    for (let message = await this.#link.receive(); message !== undefined; message = await this.#link.receive()) {
      switch (message.kind) {
        case 'want':
          this.#takeWant(message)
          break
        case 'ack':
          await this.#takeAck(repository, message)
          break
        case 'flow':
          this.#window.mayGo = message.go
          break
        case 'barrier':
          void this.#answerBarrier(message)
          break
        case 'ask':
          void this.#answer(message)
          break
        case 'refuse':
          throw refusal(message, this.#parts.journal.epoch)
        default:
          throw new PacsimileError('protocol', `A ${message.kind} message is not the collector's to send now`)
      }
      this.#changed.wake()
    }
    throw this.#link.ended ?? new PacsimileError('protocol', 'The session ended')
  }

  #takeWant({ id, indices }: Extract<Message, { kind: 'want' }>): void {
    const offer = this.#offers.get(id)
    if (offer === undefined) throw new PacsimileError('protocol', `The collector answers offer ${id}, which was not made`)
    this.#offers.delete(id)
    offer.resolve(
      indices.map((index) => {
        const source = offer.sources[index]
        if (source === undefined)
          throw new PacsimileError('protocol', `The collector wants chunk ${index} of ${offer.sources.length} offered`)
        return source
      }),
    )
  }

  async #takeAck(repository: string, { head, time }: Extract<Message, { kind: 'ack' }>): Promise<void> {
    const { journal, clock, onAck } = this.#parts
    clock.observe(time)
    if (head.epoch !== journal.epoch || head.seq > this.#sentSeq)
      throw new PacsimileError('protocol', `The collector acknowledges ${head.epoch}:${head.seq}, which was not sent`)
    const own = this.#window.hashAt(head.seq) ?? (await journal.hashAt(head.seq))
    if (own !== undefined && own !== head.hash) throw new EpochOver('forked', head.epoch, `the collector holds another record ${head.seq}`)
    this.#window.acknowledge(head.seq)
    onAck(repository, head)
  }

  async #answerBarrier({ id, volume, mark }: Extract<Message, { kind: 'barrier' }>): Promise<void> {
    const { journal, prove, setMark } = this.#parts
    let error = ''
    let seq: number | undefined
    try {
      if (mark === undefined) await prove(volume)
      else seq = (await setMark(volume, label(mark, 'The mark'))).at(-1)?.seq
    } catch (failure) {
      error = reasonOf(failure).slice(0, 1000) || 'unknown'
    }
    try {
      await this.#link.send({ kind: 'barrier-done', id, epoch: journal.epoch, seq: seq ?? journal.head.seq, error })
    } catch (failure) {
      // The connection ended meanwhile; whoever asked was told so by that.
      if (this.#link.isOpen) this.#link.fail(asPacsimileError(failure, 'Answering a barrier'))
    }
  }

  /** Of content that is acknowledged long since, and that the collector has lost. */
  async #answer({ id, digest, length, spots }: Extract<Message, { kind: 'ask' }>): Promise<void> {
    const sources = spots.map(({ volume, path, offset }) => ({ place: { volume, path }, offset }))
    this.#asks += 1
    try {
      // While that many files keep it waiting, another one would as well.
      const stored = this.#asks > ASKS_MAX ? undefined : await this.#parts.read({ chunk: { digest, length }, spots: sources })
      await this.#link.send({ kind: 'answer', id, ...(stored ?? NOTHING) })
    } catch (failure) {
      // The connection ended meanwhile; whoever asked was told so by that.
      if (this.#link.isOpen) this.#link.fail(asPacsimileError(failure, 'Answering a question for content'))
    } finally {
      this.#asks -= 1
    }
  }

  async #report(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#link.send({ kind: 'coverage', ...this.#parts.report() })
      await sleep(REPORT_MS, signal)
    }
  }
}
