/** An answer over HTTP that is read slowly, or not at all. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { sendBytes } from '../../shared/api-answer.ts'

const PIECE = Buffer.alloc(1 << 20)

it('who takes nothing of an answer loses the connection, and what makes the answer is ended', async () => {
  const outcome = Promise.withResolvers<unknown>()
  const ended = Promise.withResolvers<void>()
  async function* endless(): AsyncGenerator<Buffer> {
    try {
      for (;;) yield PIECE
    } finally {
      ended.resolve()
    }
  }
  const server = createServer((_, response) => {
    sendBytes(response, endless(), new AbortController().signal, 100).then(outcome.resolve, outcome.resolve)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  expect(await outcome.promise).toMatchObject({ code: 'timeout' })
  await ended.promise
  socket.resume()
  await once(socket, 'close')
})
