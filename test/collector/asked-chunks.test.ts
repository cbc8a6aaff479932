import { randomBytes } from 'node:crypto'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Session } from '../../collector/session.ts'
import { HybridClock, systemClock } from '../../shared/clock.ts'
import { digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { Link } from '../../shared/link.ts'
import { silentLog } from '../../shared/log.ts'
import { label, relativePath } from '../../shared/path.ts'
import { storedForm } from '../../shared/stored-form.ts'
import type { Message } from '../../shared/wire.ts'
import { VOLUME } from '../support/journal-writer.ts'
import { messagePipe } from '../support/message-pipe.ts'
import { Store } from '../support/store.ts'

const agent = label('pacs1', 'Agent')
const SPOTS = [{ volume: VOLUME, path: relativePath('a'), offset: 0 }]

type AskMessage = Extract<Message, { kind: 'ask' }>

/** A collector's session, and the agent's end of its connection. */
async function session(minor: number): Promise<{ session: Session; peer: Link; ran: Promise<void> }> {
  const { ingest, catalog, repository } = await Store.open()
  const [mine, theirs] = messagePipe()
  const clock = new HybridClock(systemClock)
  const parts = { agent, ingest, catalog, clock, repository: repository.description, log: silentLog }
  const opened = new Session({ ...parts, link: new Link(mine) })
  const ran = opened.run()
  const peer = new Link(theirs)
  onTestFinished(async () => {
    peer.close()
    await ran
  })
  const head = { epoch: 1, seq: 0, hash: NO_DIGEST }
  await peer.send({ kind: 'hello', major: 1, minor, agent, head, oldest: 0, time: clock.tick() })
  expect(await peer.receive()).toMatchObject({ kind: 'welcome' })
  return { session: opened, peer, ran }
}

async function asked(peer: Link): Promise<AskMessage> {
  const message = await peer.receive()
  if (message?.kind !== 'ask') throw new Error(`a question was expected, not ${message?.kind}`)
  return message
}

/** What it comes to, also where that is an error. */
function outcome(answer: Promise<unknown>): Promise<unknown> {
  return answer.catch((error: unknown) => error)
}

describe('content that an agent is asked for', () => {
  const content = randomBytes(1000)
  const chunk = { digest: digestOf(content), length: content.length }
  const whole = { length: content.length, ...storedForm(content, undefined) }
  const none = { length: 0, filtered: false, compressed: false, bytes: new Uint8Array(0) }

  it('is what has the digest, or none', async () => {
    const { session: opened, peer } = await session(2)
    const had = opened.ask(chunk, SPOTS)
    const question = await asked(peer)
    expect(question).toMatchObject({ ...chunk, spots: SPOTS })
    // One that nobody waits for any more.
    await peer.send({ kind: 'answer', id: question.id + 1, ...none })
    await peer.send({ kind: 'answer', id: question.id, ...whole })
    expect(await had).toEqual(content)
    const lacking = opened.ask(chunk, SPOTS)
    await peer.send({ kind: 'answer', id: (await asked(peer)).id, ...none })
    expect(await lacking).toBeUndefined()
  })

  it.each([
    ['another content', { ...whole, bytes: randomBytes(1000) }],
    ['another length', { ...whole, length: 999, bytes: content.subarray(0, 999) }],
    ['what does not open', { ...whole, compressed: true, bytes: Buffer.from('no zstd') }],
  ])('is not taken where it is %s: that is the end of the session', async (_, answer) => {
    const { session: opened, peer, ran } = await session(2)
    const had = outcome(opened.ask(chunk, SPOTS))
    await peer.send({ kind: 'answer', id: (await asked(peer)).id, ...answer })
    expect(await had).toMatchObject({ code: 'agent-unreachable' })
    expect(await peer.receive()).toMatchObject({ kind: 'refuse', code: 'protocol' })
    await ran
  })

  it('is not asked for of an agent of an earlier release', async () => {
    const { session: opened } = await session(1)
    await expect(opened.ask(chunk, SPOTS)).rejects.toMatchObject({ code: 'unsupported', message: expect.stringContaining('protocol 1.1') })
  })

  it('is not waited for when the session ends', async () => {
    const { session: opened, peer } = await session(2)
    const had = outcome(opened.ask(chunk, SPOTS))
    await asked(peer)
    peer.close()
    expect(await had).toMatchObject({ code: 'agent-unreachable' })
  })
})
