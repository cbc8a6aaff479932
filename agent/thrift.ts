/**
 * Gives back the memory that a burst of work has left: the agent is a guest on the PACS's host.
 *
 * What a scan of a million files, or a backlog, has used is garbage that V8 keeps until it needs room, memory that the C
 * library keeps for later, and tables of the state that were mapped and looked at once. Invariant: only called while nothing
 * waits, and once for each growth. It prevents an agent that has nothing to do from holding hundreds of MB, and one that needs
 * them from being slowed down.
 */
import { readFileSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { RESIDENT_BYTES_TARGET } from '../shared/limits.ts'
import { systemCalls } from './system-calls.ts'

/** Less than this is not worth another attempt. */
const GROWTH_BYTES = 16 * 1024 * 1024
const TABLE = '.ldb'

export class Thrift {
  readonly #directory: ByteString
  readonly #residentMax: number
  readonly #residentBytes: () => number
  /** What was left the last time. */
  #leftBytes = 0

  /** `directory` holds the databases of the agent; `residentMax` bytes are nothing to speak of; `residentBytes`: what this process has. */
  constructor(directory: ByteString, residentMax = RESIDENT_BYTES_TARGET, residentBytes = () => process.memoryUsage.rss()) {
    this.#directory = directory
    this.#residentMax = residentMax
    this.#residentBytes = residentBytes
  }

  /** To be called while nothing waits. */
  tidy(): void {
    if (this.#residentBytes() < Math.max(this.#residentMax, this.#leftBytes + GROWTH_BYTES)) return
    // Before the C library is asked: what this frees is its to give back.
    globalThis.gc?.()
    systemCalls?.trimMemory()
    for (const [from, until] of this.#tables()) systemCalls?.pageOut(from, until - from)
    this.#leftBytes = this.#residentBytes()
  }

  /** Where the databases' tables are mapped (proc_pid_maps(5)). */
  #tables(): [from: number, until: number][] {
    return readFileSync('/proc/self/maps', 'latin1')
      .split('\n')
      .filter((line) => line.includes(this.#directory) && line.endsWith(TABLE))
      .flatMap((line) => {
        const [from = '', until = ''] = line.split(' ', 1)[0]?.split('-') ?? []
        return until === '' ? [] : [[Number.parseInt(from, 16), Number.parseInt(until, 16)]]
      })
  }
}
