/** What can be done beside something alike, is: as much at a time as there are cores on the smallest machine that runs the tests. */
const AT_ONCE = 2

/** Resolves when each item was acted upon. @throws what the first act that fails throws; no other one is begun then */
export async function sideBySide<Item>(items: readonly Item[], act: (item: Item) => Promise<void>): Promise<void> {
  const waiting = items.values()
  let hasFailed = false
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const item of waiting) {
        if (hasFailed) return
        try {
          await act(item)
        } catch (error) {
          hasFailed = true
          throw error
        }
      }
    }),
  )
}
