/**
 * What restorers are served on the agents' port: the history API, and WebDAV.
 *
 * Invariant: nothing here writes anything but the access log. It prevents who may read from ever changing what is read.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import { ANSWERS_MAX, ANSWERS_PER_RESTORER_MAX } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { HISTORY_PATH } from '../shared/wire.ts'
import type { AccessEnd } from './access-chain.ts'
import { AccessLog } from './access-log.ts'
import { AnswerSlots } from './answer-slots.ts'
import type { Catalog } from './catalog.ts'
import { Dav } from './dav.ts'
import { isDavUrl } from './dav-place.ts'
import type { History } from './history.ts'
import { HistoryApi } from './history-api.ts'
import type { Identity } from './identity.ts'
import { Readers } from './readers.ts'

/** So long an end waits for the last answers. */
const END_MS_MAX = 5000

export interface RestorerPortParts {
  readonly dataDir: string
  readonly identity: Identity
  readonly history: History
  readonly catalog: Catalog
  /** @throws rebuilding while the catalog lacks something */
  readonly requireFolded: () => void
  readonly log: Log
}

export class RestorerPort implements AsyncDisposable {
  readonly #api: HistoryApi
  readonly #dav: Dav
  readonly #access: AccessLog
  readonly #answering = new Set<Promise<void>>()

  constructor({ dataDir, identity, ...reading }: RestorerPortParts) {
    this.#access = new AccessLog(dataDir)
    const slots = new AnswerSlots(ANSWERS_PER_RESTORER_MAX, ANSWERS_MAX)
    const onRead = (name: Label): void => identity.restorers.noteUse(name, Date.now())
    const parts = { readers: new Readers(identity, reading.log, onRead), slots, access: this.#access, ...reading }
    this.#api = new HistoryApi(parts)
    this.#dav = new Dav(parts)
  }

  /** Behind the last line of the access log, durably; undefined where none was written yet. @throws io */
  accessEnd(): AccessEnd | undefined {
    return this.#access.durableEnd()
  }

  /** False: the address is none of these. */
  answer(request: IncomingMessage, response: ServerResponse): boolean {
    const url = request.url ?? ''
    const answerer = url.startsWith(HISTORY_PATH) ? this.#api : isDavUrl(url) ? this.#dav : undefined
    if (answerer === undefined) return false
    const answering = answerer.answer(request, response).finally(() => this.#answering.delete(answering))
    this.#answering.add(answering)
    return true
  }

  /** Call this when the port is closed: what is being answered notices it, all but a long look at what is not to be found. */
  async [Symbol.asyncDispose](): Promise<void> {
    const patience = new AbortController()
    const tooLong = setTimeout(END_MS_MAX, undefined, { signal: patience.signal }).catch(() => {})
    await Promise.race([Promise.all(this.#answering), tooLong])
    patience.abort()
    this.#access[Symbol.dispose]()
  }
}
