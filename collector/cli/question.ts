/**
 * A question to the person at the terminal that takes yes or no, and takes anything else for no.
 */
import { createInterface } from 'node:readline/promises'

/** The caller has made sure that there is a terminal. */
export async function isAgreed(question: string): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return /^y(es)?$/i.test((await lines.question(question)).trim())
  } finally {
    lines.close()
  }
}
