/**
 * Makes durable what the rounds have applied, and lets the cursors say so, beside the rounds.
 *
 * A syncfs takes as long as the disk is behind with whatever anybody wrote. So no round waits for one, unless too much was written since the
 * last began. Order: how far each agent has got is read between two rounds, then the filesystems are synced, then the cursors are written.
 * Invariant: a cursor names what was in the files before its syncfs began, and after a lost write none is written before everything was
 * compared. It prevents a replica that is as late as the disk is slow, and a cursor that leads it.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { asPacsimileError, type PacsimileError } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { REPLICA_UNSYNCED_BYTES_MAX } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { BEFORE_ALL, comparePositions, type Position } from '../shared/record.ts'
import type { AgentReplica } from './agent-replica.ts'
import type { ReplicaCursor } from './replica-cursor.ts'
import type { ReplicaProblems } from './replica-problems.ts'

/** Pause between the end of one and the beginning of the next, in ms, and where a cursor could not be written. */
const PAUSE_MS = 1000
const RETRY_MS = 5000

export interface ReplicaSyncParts {
  readonly agents: ReadonlyMap<Label, AgentReplica>
  readonly cursor: ReplicaCursor
  readonly problems: ReplicaProblems
  readonly log: Log
  /** What is on disk is not known any more of any agent. */
  readonly onLoss: () => void
  /** One has ended, well or not. */
  readonly onEnd: () => void
}

interface Reached {
  readonly name: Label
  readonly agent: AgentReplica
  readonly applied: Position
  readonly whole: boolean
}

export class ReplicaSync {
  readonly #parts: ReplicaSyncParts
  /** By device. Held open, for the kernel tells a descriptor of the writes that were lost since it was opened. */
  readonly #filesystems = new Map<number, number>()
  #turn: Promise<void> = Promise.resolve()
  #running: Promise<void> | undefined
  /** Not before, by `performance.now`. */
  #nextMs = 0
  /** Content that was written since the last one began. */
  #unsyncedBytes = 0
  #losses = 0
  #loss: PacsimileError | undefined

  constructor(parts: ReplicaSyncParts) {
    this.#parts = parts
  }

  /** Files are about to be written below this directory. @throws io */
  cover(directory: string): void {
    try {
      const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
      const { dev } = fstatSync(fd)
      if (this.#filesystems.has(dev)) closeSync(fd)
      else this.#filesystems.set(dev, fd)
    } catch (error) {
      throw asPacsimileError(error, `Opening ${directory}`)
    }
  }

  wrote(bytes: number): void {
    this.#unsyncedBytes += bytes
  }

  /** In how many ms `pass` has something to do; undefined for not before something happens. */
  get dueMs(): number | undefined {
    if (this.#running !== undefined || this.#reached().length === 0) return undefined
    return Math.max(0, this.#nextMs - performance.now())
  }

  /** Between two rounds: begins what is due. Waits only where the disk is too far behind. */
  async pass(): Promise<void> {
    if (this.dueMs === 0) this.#begin()
    if (this.#unsyncedBytes <= REPLICA_UNSYNCED_BYTES_MAX) return
    await this.#running
    this.#begin()
  }

  /** Everything that was applied is durable, and the cursors say so. No round may be under way. @throws io */
  async flush(): Promise<void> {
    await this.#running
    if (this.#reached().length > 0) await this.#sync()
  }

  /** Everything that was written before is durable. @throws io */
  async filesystems(): Promise<void> {
    // One at a time: of a write that was lost only one is told that asks for it with the same descriptor.
    const turn = this.#turn.then(() => this.#syncAll())
    this.#turn = turn.catch(() => {})
    await turn
  }

  /** To be asked before what a round has done is believed. @throws io, once for each write that was lost */
  requireSound(): void {
    const loss = this.#loss
    this.#loss = undefined
    if (loss !== undefined) throw loss
  }

  /** When nothing is synced any more. */
  close(): void {
    for (const fd of this.#filesystems.values()) closeSync(fd)
    this.#filesystems.clear()
  }

  /** What is to be said of the agents, and is not yet. */
  #reached(): Reached[] {
    return [...this.#parts.agents].flatMap(([name, agent]) => {
      // What is on disk is not known before the comparison is done: no cursor may say otherwise.
      if (agent.needsWhole) return []
      const whole = !this.#parts.problems.has(name)
      const isSaid = comparePositions(agent.applied, agent.durable) === 0 && agent.durableWhole === whole
      return isSaid ? [] : [{ name, agent, applied: agent.applied, whole }]
    })
  }

  #begin(): void {
    if (this.#running !== undefined) return
    const losses = this.#losses
    this.#running = this.#sync()
      .catch((error: unknown) => {
        // Of a lost write the next round tells.
        if (this.#losses !== losses) return
        const { code, message } = asPacsimileError(error, 'Writing the cursors of the replica')
        this.#parts.log.error('the replica is not durable', { code, reason: message })
      })
      .finally(() => {
        this.#running = undefined
        this.#parts.onEnd()
      })
  }

  async #sync(): Promise<void> {
    const reached = this.#reached()
    const losses = this.#losses
    this.#unsyncedBytes = 0
    let pauseMs = RETRY_MS
    try {
      await this.filesystems()
      // Another one was told of a lost write meanwhile.
      if (this.#losses !== losses) return
      for (const { name, agent, applied, whole } of reached) {
        this.#parts.cursor.write(name, applied, whole)
        agent.durable = applied
        agent.durableWhole = whole
      }
      pauseMs = PAUSE_MS
    } finally {
      this.#nextMs = performance.now() + pauseMs
    }
  }

  async #syncAll(): Promise<void> {
    try {
      // Whoever sends is answered meanwhile: behind what others write to the disk this may take minutes.
      for (const fd of this.#filesystems.values()) await libc?.filesystemSynced(fd)
    } catch (error) {
      // The kernel reports a lost write once, and then success: what is on disk has to be looked at anew.
      this.#losses += 1
      this.#loss = asPacsimileError(error, 'Making the replica durable')
      for (const agent of this.#parts.agents.values()) {
        agent.needsWhole = true
        agent.applied = BEFORE_ALL
        agent.durable = BEFORE_ALL
      }
      this.#parts.onLoss()
      for (const name of this.#parts.agents.keys()) this.#parts.cursor.forget(name)
      throw error
    }
  }
}
