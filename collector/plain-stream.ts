/**
 * A body that is sent as it is made, at the reader's pace.
 *
 * The head waits for the first bytes, so that what fails at once is still answered with an error. Invariant: the body ends well only when
 * all of it was made; whoever calls this cuts the connection otherwise.
 */
import type { ServerResponse } from 'node:http'
import { drained } from '../shared/api-answer.ts'
import { READER_STALL_MS } from '../shared/limits.ts'

export interface PlainHead {
  readonly status: number
  readonly headers: Readonly<Record<string, string | number>>
}

/** Counts in `sent`. @throws what the source throws, timeout, the signal's reason */
export async function sendPlain(
  response: ServerResponse,
  source: AsyncIterable<Uint8Array>,
  { status, headers }: PlainHead,
  signal: AbortSignal,
  sent: { bytes: number },
): Promise<void> {
  const begin = (): unknown => response.headersSent || response.writeHead(status, headers)
  for await (const bytes of source) {
    signal.throwIfAborted()
    begin()
    sent.bytes += bytes.length
    if (!response.write(bytes)) await drained(response, signal, READER_STALL_MS)
  }
  signal.throwIfAborted()
  begin()
  response.end()
}
