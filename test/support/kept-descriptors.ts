/** Keeps descriptors as a supervisor does, within this process: what one life keeps, the next one takes. */

import { randomBytes } from 'node:crypto'
import { closeSync } from 'node:fs'
import { onTestFinished } from 'vitest'
import { listenForDescriptors, receiveDescriptor, sendDescriptor } from '../../agent/descriptor-calls.ts'

export class KeptDescriptors {
  readonly #address = `@pacsimile-test-${randomBytes(8).toString('hex')}`
  readonly #socket = listenForDescriptors(this.#address)
  readonly #kept = new Map<string, number>()
  #received: Promise<void> = Promise.resolve()

  constructor() {
    onTestFinished(async () => {
      await this.#received
      for (const fd of [...this.#kept.values(), this.#socket]) closeSync(fd)
    })
  }

  keep(name: string, fd: number): void {
    sendDescriptor(this.#address, `FDSTORE=1\nFDNAME=${name}`, fd)
    this.#received = this.#receive(this.#received)
  }

  async #receive(before: Promise<void>): Promise<void> {
    await before
    const { message, descriptor } = await receiveDescriptor(this.#socket)
    const kept = /^FDNAME=(.*)$/m.exec(message)?.[1] ?? ''
    if (descriptor !== undefined) this.#kept.set(kept, descriptor)
  }

  /** Resolves when all that was sent has arrived. */
  async arrived(): Promise<void> {
    await this.#received
  }

  take(name: string): number | undefined {
    const fd = this.#kept.get(name)
    this.#kept.delete(name)
    return fd
  }

  forget(): void {}
}
