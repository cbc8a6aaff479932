/** Waiting for what must come about: the condition is asked again and again, and what it last said is in the error. */
import { setTimeout } from 'node:timers/promises'

const PAUSE_MS = 50

/** Resolves with the first answer that is not undefined. @throws when there is none in time */
export async function until<Answer>(
  what: string,
  seconds: number,
  ask: () => Answer | undefined | Promise<Answer | undefined>,
): Promise<Answer> {
  const deadline = Date.now() + seconds * 1000
  for (;;) {
    const answer = await ask()
    if (answer !== undefined) return answer
    if (Date.now() > deadline) throw new Error(`${what}: not within ${seconds} s`)
    await setTimeout(PAUSE_MS)
  }
}
