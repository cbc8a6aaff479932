import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { tlsOptions } from '../../agent/identity.ts'
import { HybridClock, systemClock } from '../../shared/clock.ts'
import { digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { encodeMessage, JOURNAL_PATH, type Message, PROTOCOL_MAJOR, PROTOCOL_MINOR, SUBPROTOCOL } from '../../shared/wire.ts'
import { Installation } from '../support/installation.ts'
import { JournalWriter } from '../support/journal-writer.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'

const HELLO: Message = {
  kind: 'hello',
  major: PROTOCOL_MAJOR,
  minor: PROTOCOL_MINOR,
  agent: 'evil',
  head: { epoch: 1, seq: 0, hash: NO_DIGEST },
  oldest: 0,
  time: new HybridClock(systemClock).tick(),
}

/** A session that was opened with an enrolled agent's certificate, and then misbehaves. Resolves with how it ended. */
function misbehave(installation: Installation, act: (socket: WebSocket) => void): Promise<number> {
  const tls: object = tlsOptions(installation.stateOf('evil'))
  const socket = new WebSocket(`wss://127.0.0.1:${installation.port}${JOURNAL_PATH}`, SUBPROTOCOL, { ...tls, perMessageDeflate: false })
  return new Promise((resolve, reject) => {
    socket.on('open', () => act(socket))
    socket.on('error', reject)
    socket.on('close', (code) => resolve(code))
  })
}

const writer = new JournalWriter({ agent: 'evil' })
const bytesOf = (from: number, to?: number): Buffer[] => writer.written.slice(from, to).map(({ bytes }) => bytes)

/** What is sent after the welcome. */
const ATTACKS: [string, (socket: WebSocket) => void][] = [
  ['a text message', (socket) => socket.send('hello')],
  ['an empty message', (socket) => socket.send(Buffer.alloc(0))],
  ['a message of unknown type', (socket) => socket.send(Buffer.from([99, 1, 2, 3]))],
  ['half a control message', (socket) => socket.send(encodeMessage(HELLO).subarray(0, 20))],
  ['a map that claims a billion entries', (socket) => socket.send(Buffer.from([4, 0xba, 0x3b, 0x9a, 0xca, 0x00]))],
  ['a deeply nested control message', (socket) => socket.send(Buffer.concat([Buffer.from([4]), Buffer.alloc(900_000, 0x81)]))],
  [
    'an offer that is no list of digests',
    (socket) =>
      socket.send(Buffer.concat([Buffer.from([4, 0xa2, 0x62, 0x69, 0x64, 1, 0x67]), Buffer.from('digests'), Buffer.from([0x43, 1, 2, 3])])),
  ],
  ['a control message over its bound', (socket) => socket.send(Buffer.concat([Buffer.from([4]), Buffer.alloc(2 << 20)]))],
  [
    'a chunk of no length',
    (socket) =>
      socket.send(
        encodeMessage({ kind: 'chunk', digest: NO_DIGEST, length: 0, filtered: false, compressed: false, bytes: Buffer.alloc(0) }),
      ),
  ],
  [
    'a chunk that claims 4 GB',
    (socket) =>
      socket.send(
        encodeMessage({
          kind: 'chunk',
          digest: NO_DIGEST,
          length: 0xffff_ffff,
          filtered: false,
          compressed: true,
          bytes: Buffer.alloc(10),
        }),
      ),
  ],
  [
    'a chunk with another content than its hash',
    (socket) =>
      socket.send(
        encodeMessage({
          kind: 'chunk',
          digest: digestOf(Buffer.from('x')),
          length: 1,
          filtered: false,
          compressed: false,
          bytes: Buffer.from('y'),
        }),
      ),
  ],
  ['a second hello', (socket) => socket.send(encodeMessage(HELLO))],
  [
    "the collector's own kind of message",
    (socket) => socket.send(encodeMessage({ kind: 'ack', head: { epoch: 1, seq: 1, hash: NO_DIGEST }, time: writer.end.time })),
  ],
  ['records out of order', (socket) => socket.send(encodeMessage({ kind: 'records', records: bytesOf(1) }))],
  ['records with a hole', (socket) => socket.send(encodeMessage({ kind: 'records', records: [...bytesOf(0, 1), ...bytesOf(2)] }))],
  [
    'a record with a changed byte',
    (socket) =>
      socket.send(
        encodeMessage({
          kind: 'records',
          records: bytesOf(0).map((bytes, i) => (i === 1 ? Buffer.from(bytes.map((byte, at) => (at === 60 ? byte ^ 1 : byte))) : bytes)),
        }),
      ),
  ],
  ['garbage for a record', (socket) => socket.send(encodeMessage({ kind: 'records', records: [Buffer.alloc(100, 7)] }))],
]

describe('a hostile peer', () => {
  it('loses its session and changes nothing, whatever it sends', async () => {
    const installation = await Installation.make()
    installation.startCollector()
    await installation.up()
    const source = join(installation.directory, 'source')
    installation.enroll('honest', source)
    installation.enroll('evil', join(installation.directory, 'evil'))
    writeFileSync(join(source, 'before'), 'content')
    installation.startAgent('honest')
    await installation.wait('honest')

    for (const [name, attack] of ATTACKS) {
      const code = await misbehave(installation, (socket) => {
        socket.send(encodeMessage(HELLO))
        attack(socket)
      })
      expect([1002, 1006], name).toContain(code)
      expect(installation.isRunning('collector'), name).toBe(true)
    }
    // Something else than a hello first; a hello for another agent; another major version.
    const [firstRecords] = [encodeMessage({ kind: 'records', records: bytesOf(0) })]
    for (const first of [firstRecords, encodeMessage({ ...HELLO, agent: 'honest' }), encodeMessage({ ...HELLO, major: 9 })]) {
      expect([1002, 1006]).toContain(await misbehave(installation, (socket) => socket.send(first)))
    }

    // A frame that claims a terabyte is refused by its header, before anything is kept of it.
    await new Promise<void>((resolve, reject) => {
      const tls: object = tlsOptions(installation.stateOf('evil'))
      const socket = connect({ ...tls, host: '127.0.0.1', port: installation.port }, () => {
        socket.write(
          `GET ${JOURNAL_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: ${SUBPROTOCOL}\r\n\r\n`,
        )
        socket.write(Buffer.from([0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]))
      })
      socket.on('error', reject)
      socket.on('close', () => resolve())
      socket.resume()
    })

    // Without a certificate nothing is answered at all.
    const answered = await new Promise<string>((resolve) => {
      let text = ''
      const socket = connect({ host: '127.0.0.1', port: installation.port, rejectUnauthorized: false }, () =>
        socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
      )
      socket.on('data', (data: Buffer) => {
        text += data.toString()
      })
      // How it is cut off differs by the moment; that it is, counts.
      socket.on('error', () => resolve(text))
      socket.on('close', () => resolve(text))
    })
    expect(answered).toBe('')

    writeFileSync(join(source, 'after'), 'content')
    await installation.wait('honest')
    expect(differences(walkTree(source), walkTree(installation.replicaOf('honest')))).toEqual([])
    expect(installation.json('check', '--data', installation.data)).toMatchObject({ whole: true })
    expect(installation.log('collector')).not.toContain('"code":"internal"')
  })
})
