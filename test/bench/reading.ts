/**
 * How fast history is read over the network, beside what Node's own https makes of the same file on this machine, in one run.
 *
 *     npm run bench:reading          BENCH_MB=300 BENCH_FILES=20000 are its settings
 *
 * WebDAV: one file by GET, beside the same file from a plain https server, by turns; MB/s, and seconds of a core that the server took for
 * a GB, which hold also where the machine is shared. Listing: PROPFIND of a directory of many entries. Restore: everything, with the
 * certificate of a restorer, beside the same from the collector's own host. Nothing fails by time here.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { createServer, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readRestorer } from '../../collector/restorer-identity.ts'
import { Random } from '../support/workload.ts'
import { Station } from './station.ts'

const LARGE_MB = Number(process.env['BENCH_MB'] ?? 300)
const FILES = Number(process.env['BENCH_FILES'] ?? 20_000)
const TURNS = 5
const PIECE_BYTES = 1 << 20
const PATIENCE_SECONDS = 600
const TICKS_PER_SECOND = 100
const EXECUTABLE = join(import.meta.dirname, '../../collector/cli/pacsimile')

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

/** Seconds of a core that a process has taken. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

interface Fetched {
  readonly bytes: number
  readonly seconds: number
  readonly cpuSeconds: number
}

async function fetched(url: string, tls: object, pid: number, method = 'GET'): Promise<Fetched> {
  const [started, cpu] = [performance.now(), cpuSeconds(pid)]
  const asking = request(url, { ...tls, method, agent: false, headers: method === 'GET' ? {} : { depth: '1' } })
  asking.end()
  const [answer] = (await once(asking, 'response')) as [IncomingMessage]
  let bytes = 0
  for await (const part of answer as AsyncIterable<Buffer>) bytes += part.length
  return { bytes, seconds: (performance.now() - started) / 1000, cpuSeconds: cpuSeconds(pid) - cpu }
}

function told(all: readonly Fetched[]): string {
  const rate = median(all.map(({ bytes, seconds }) => bytes / 1e6 / seconds))
  const cpu = median(all.map((one) => one.cpuSeconds / (one.bytes / 1e9)))
  return `${rate.toFixed(0)} MB/s, ${cpu.toFixed(1)} s of a core per GB`
}

/** What the other process of this measurement does. */
async function servePlainly(file: string, keys: string): Promise<void> {
  const tls = { key: readFileSync(join(keys, 'server.key')), cert: readFileSync(join(keys, 'server.crt')), minVersion: 'TLSv1.3' } as const
  const server = createServer(tls, (_, response) => void createReadStream(file, { highWaterMark: PIECE_BYTES }).pipe(response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  process.stdout.write(`${typeof address === 'object' && address !== null ? address.port : 0}\n`)
}

async function measure(directory: string): Promise<void> {
  const source = join(directory, 'source')
  mkdirSync(join(source, 'many'), { recursive: true })
  const random = new Random(1)
  const large = join(source, 'large')
  for (let mb = 0; mb < LARGE_MB; mb++) writeFileSync(large, random.bytes(1_000_000), { flag: 'a' })
  for (let i = 0; i < FILES; i++) writeFileSync(join(source, 'many', `${i}.dcm`), random.bytes(2000))
  await using station = await Station.start(join(directory, 'station'), source)
  await station.wait(PATIENCE_SECONDS)

  const command = (...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync(EXECUTABLE, args, { encoding: 'utf8', maxBuffer: 1 << 30 })
    if (status !== 0) throw new Error(`pacsimile ${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const identity = join(directory, 'identity')
  const token = command('restorer', 'token', 'bench', '--allow', 'all', '--data', station.data).trim()
  command('restorer', 'enroll', 'bench', '--collector', station.url, '--token', token, '--identity', identity)
  const { tls, collector } = readRestorer(identity)
  const dav = `https://${collector.host}:${collector.port}/dav/bench/images/@now`

  const plain = spawn(process.execPath, [import.meta.filename, 'serve', large, join(station.data, 'keys')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [port] = (await once(plain.stdout, 'data')) as [Buffer]
  try {
    const [ours, plainly]: [Fetched[], Fetched[]] = [[], []]
    for (let turn = 0; turn < TURNS; turn++) {
      ours.push(await fetched(`${dav}/large`, tls, station.collectorPid))
      plainly.push(await fetched(`https://127.0.0.1:${port.toString().trim()}/`, tls, plain.pid ?? 0))
    }
    const ratio = median(ours.map(({ seconds }, i) => (plainly[i]?.seconds ?? Number.NaN) / seconds))
    process.stdout.write(
      `WebDAV: one file of ${LARGE_MB} MB: ${told(ours)}; plain https of Node: ${told(plainly)}: ${ratio.toFixed(2)} x\n`,
    )
  } finally {
    plain.kill()
  }
  const listed = await fetched(`${dav}/many/`, tls, station.collectorPid, 'PROPFIND')
  process.stdout.write(`listing: ${FILES} entries in ${listed.seconds.toFixed(2)} s, ${listed.cpuSeconds.toFixed(2)} s of a core\n`)

  for (const [name, place] of [
    ['with a certificate', ['--collector', station.url, '--identity', identity]],
    ["on the collector's host", ['--data', station.data]],
  ] as const) {
    const to = join(directory, 'restored')
    const started = performance.now()
    const cpu = cpuSeconds(station.collectorPid)
    const report = JSON.parse(command('restore', 'bench:images', '--at', 'now', '--to', to, '--json', ...place)) as { bytes: number }
    const seconds = (performance.now() - started) / 1000
    const took = cpuSeconds(station.collectorPid) - cpu
    process.stdout.write(
      `restore ${name}: ${(report.bytes / 1e6).toFixed(0)} MB in ${seconds.toFixed(1)} s, ${(report.bytes / 1e6 / seconds).toFixed(0)} MB/s; the collector took ${took.toFixed(1)} s of a core\n`,
    )
    rmSync(to, { recursive: true, force: true })
  }
}

const [, , task, file = '', keys = ''] = process.argv
if (task === 'serve') {
  await servePlainly(file, keys)
} else {
  const directory = mkdtempSync(join(tmpdir(), 'pacsimile-bench-'))
  try {
    await measure(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
