import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { PacsimileError } from '../../shared/errors.ts'
import { LOCAL_REQUEST_BYTES_MAX } from '../../shared/limits.ts'
import { callLocal, type LocalRoutes, serveLocal, streamLocal } from '../../shared/local-api.ts'

const CALL = { unreachable: 'collector-unreachable' } as const

function socketFile(...below: string[]): string {
  const directory = mkdtempSync(join(tmpdir(), 'local-api-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  mkdirSync(join(directory, ...below), { recursive: true })
  return join(directory, ...below, 'admin.sock')
}

async function serve(routes: LocalRoutes, file = socketFile()): Promise<string> {
  const server = await serveLocal(file, routes)
  onTestFinished(() => server.close())
  return file
}

async function collect(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

/** Resolves when `signal` aborts, so that a test can wait for the server to notice. */
function aborted(signal: AbortSignal): Promise<unknown> {
  return signal.aborted ? Promise.resolve() : once(signal, 'abort')
}

describe('a call', () => {
  it('brings the question there and the answer back, bigints as decimal strings', async () => {
    const file = await serve({ echo: (body) => Promise.resolve({ body, seq: 2n ** 63n }) })
    await expect(callLocal(file, 'echo', { at: 5n, path: 'é' }, CALL)).resolves.toEqual({
      body: { at: '5', path: 'é' },
      seq: '9223372036854775808',
    })
  })

  it('may have no question and no answer', async () => {
    const file = await serve({ nothing: (body) => Promise.resolve(body === null ? undefined : 'something') })
    await expect(callLocal(file, 'nothing', undefined, CALL)).resolves.toBeUndefined()
  })

  it('fails as the route did, with code, message and details', async () => {
    const file = await serve({
      broken: () => Promise.reject(new PacsimileError('damage', 'Pack 7 is damaged', { details: { pack: 7n } })),
    })
    await expect(callLocal(file, 'broken', {}, CALL)).rejects.toMatchObject({
      code: 'damage',
      message: 'Pack 7 is damaged',
      details: { pack: '7' },
    })
  })

  it('of an unknown name is refused, also for names that every object has', async () => {
    const file = await serve({})
    await expect(callLocal(file, 'restore', {}, CALL)).rejects.toMatchObject({ code: 'unsupported' })
    await expect(callLocal(file, 'constructor', {}, CALL)).rejects.toMatchObject({ code: 'unsupported' })
  })

  it('that is too large is refused before it is sent', async () => {
    const file = await serve({ echo: (body) => Promise.resolve(body) })
    await expect(callLocal(file, 'echo', 'x'.repeat(LOCAL_REQUEST_BYTES_MAX), CALL)).rejects.toMatchObject({ code: 'usage' })
  })

  it.each(['collector-unreachable', 'agent-unreachable'] as const)('to nobody is %s, as the caller says', async (unreachable) => {
    await expect(callLocal(socketFile(), 'status', {}, { unreachable })).rejects.toMatchObject({ code: unreachable })
  })

  it('that is given up rejects with the reason and tells the route', async () => {
    const giveUp = new AbortController()
    const told = Promise.withResolvers<void>()
    const file = await serve({
      async wait(_, signal) {
        giveUp.abort(new PacsimileError('timeout', 'Enough'))
        await aborted(signal)
        told.resolve()
      },
    })
    await expect(callLocal(file, 'wait', {}, { ...CALL, signal: giveUp.signal })).rejects.toMatchObject({ code: 'timeout' })
    await told.promise
  })
})

describe('a stream', () => {
  it('brings every byte, and asks for more only as it is read', async () => {
    const piece = Buffer.alloc(256 * 1024, 7)
    const pieces = 200
    let given = 0
    const file = await serve({
      async *bytes() {
        for (; given < pieces; given++) yield piece
      },
    })
    const stream = streamLocal(file, 'bytes', {}, CALL)
    const first = await stream.next()
    expect(given).toBeLessThan(pieces / 2)
    const rest = await collect(stream)
    expect((first.value?.length ?? 0) + rest.length).toBe(pieces * piece.length)
  })

  it('of nothing is whole', async () => {
    const file = await serve({ async *bytes() {} })
    await expect(collect(streamLocal(file, 'bytes', {}, CALL))).resolves.toHaveLength(0)
  })

  it.each([0, 3])('that breaks after %i pieces fails as the route did', async (pieces) => {
    const file = await serve({
      async *bytes() {
        for (let i = 0; i < pieces; i++) yield Buffer.from('abc')
        throw new PacsimileError('damage', 'The fourth chunk is damaged')
      },
    })
    await expect(collect(streamLocal(file, 'bytes', {}, CALL))).rejects.toMatchObject({
      code: 'damage',
      message: 'The fourth chunk is damaged',
    })
  })

  it('that is left early ends the route', async () => {
    const ended = Promise.withResolvers<void>()
    const file = await serve({
      async *bytes() {
        try {
          for (;;) yield Buffer.alloc(64 * 1024)
        } finally {
          ended.resolve()
        }
      },
    })
    for await (const bytes of streamLocal(file, 'bytes', {}, CALL)) {
      expect(bytes.length).toBeGreaterThan(0)
      break
    }
    await ended.promise
  })

  it('from a program that stops in the middle fails', async () => {
    const file = socketFile()
    const server = await serveLocal(file, {
      async *bytes(_, signal) {
        yield Buffer.from('abc')
        await aborted(signal)
      },
    })
    const stream = streamLocal(file, 'bytes', {}, CALL)
    await stream.next()
    await server.close()
    await expect(collect(stream)).rejects.toBeInstanceOf(PacsimileError)
  })

  it('that ends without saying that it is whole fails', async () => {
    const file = socketFile()
    const liar = createServer((socket) => {
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 3\r\n\r\nabc'))
    }).listen(file)
    await once(liar, 'listening')
    onTestFinished(() => void liar.close())
    await expect(collect(streamLocal(file, 'bytes', {}, CALL))).rejects.toMatchObject({ code: 'protocol' })
  })
})

describe('the socket file', () => {
  it('is for its owner only, leaves nothing beside it, and goes with the server', async () => {
    const file = socketFile()
    const server = await serveLocal(file, {})
    expect(statSync(file).mode & 0o777).toBe(0o600)
    await Promise.all([server.close(), server.close()])
    expect(statSync(file, { throwIfNoEntry: false })).toBeUndefined()
  })

  it('of a program that died is replaced', async () => {
    const file = socketFile()
    writeFileSync(file, '')
    await serve({ hello: () => Promise.resolve('here') }, file)
    await expect(callLocal(file, 'hello', {}, CALL)).resolves.toBe('here')
  })

  it('of a living program is left alone', async () => {
    const file = await serve({ hello: () => Promise.resolve('first') })
    await expect(serveLocal(file, {})).rejects.toMatchObject({ code: 'locked' })
    await expect(callLocal(file, 'hello', {}, CALL)).resolves.toBe('first')
  })

  it('may lie deeper than a socket address reaches', async () => {
    const file = socketFile('a'.repeat(100), 'b'.repeat(100))
    await serve({ hello: () => Promise.resolve('deep') }, file)
    await expect(callLocal(file, 'hello', {}, CALL)).resolves.toBe('deep')
    expect(statSync(file).isSocket()).toBe(true)
  })

  it('survives a peer that speaks no HTTP', async () => {
    const file = await serve({ hello: () => Promise.resolve('here') })
    const socket = createConnection(file)
    socket.on('error', () => {})
    socket.resume()
    socket.end('\0\0\0')
    await once(socket, 'close')
    await expect(callLocal(file, 'hello', {}, CALL)).resolves.toBe('here')
  })
})
