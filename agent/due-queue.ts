/**
 * What is due when: a binary heap of times.
 *
 * Invariant: `pop` gives items in the order of their times, and among equal times in the order of arrival. It prevents a
 * path that keeps changing from overtaking one that waits.
 */
interface Slot<Item> {
  readonly dueMs: number
  readonly order: number
  readonly item: Item
}

export class DueQueue<Item> {
  readonly #heap: Slot<Item>[] = []
  #pushed = 0

  get nextMs(): number | undefined {
    return this.#heap[0]?.dueMs
  }

  push(item: Item, dueMs: number): void {
    const slot = { dueMs, order: this.#pushed++, item }
    let at = this.#heap.push(slot) - 1
    while (at > 0) {
      const parentAt = (at - 1) >> 1
      const parent = this.#heap[parentAt]
      if (parent === undefined || isBefore(parent, slot)) break
      this.#heap[at] = parent
      at = parentAt
    }
    this.#heap[at] = slot
  }

  /** The first item, with the time for which it was pushed. */
  pop(): { readonly item: Item; readonly dueMs: number } | undefined {
    const first = this.#heap[0]
    const last = this.#heap.pop()
    if (first === undefined || last === undefined) return undefined
    if (this.#heap.length > 0) this.#sink(last)
    return first
  }

  #sink(slot: Slot<Item>): void {
    let at = 0
    for (;;) {
      let childAt = 2 * at + 1
      let child = this.#heap[childAt]
      const right = this.#heap[childAt + 1]
      if (child !== undefined && right !== undefined && isBefore(right, child)) {
        child = right
        childAt += 1
      }
      if (child === undefined || isBefore(slot, child)) break
      this.#heap[at] = child
      at = childAt
    }
    this.#heap[at] = slot
  }
}

function isBefore<Item>(a: Slot<Item>, b: Slot<Item>): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order)
}
