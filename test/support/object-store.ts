/**
 * A real S3 server for tests: one Ceph monitor, one OSD in memory and a RADOS gateway, on loopback, as ordinary processes.
 *
 * Needs the packages radosgw, ceph-mon, ceph-osd and ceph-common, and root. It is started once for a test file and stopped by the ids of
 * its processes. It prevents a client from being tested against an imitation that ignores conditions and locks.
 */
import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { CreateBucketCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3'
import { freePort } from './free-port.ts'

const PROGRAMS = ['/usr/bin/ceph-mon', '/usr/bin/ceph-osd', '/usr/bin/radosgw', '/usr/bin/ceph']
const UP_SECONDS_MAX = 90
const ATTEMPTS_MAX = 10
const ACCESS_KEY = 'AKTEST'
const SECRET_KEY = 'SKTESTSKTEST'

/** Announced where it is missing. */
export const hasObjectStore = process.getuid?.() === 0 && PROGRAMS.every((program) => existsSync(program))

export class ObjectStore {
  readonly port: number
  readonly client: S3Client
  /** In the form that `copy add --credentials-file` takes. */
  readonly credentialsFile: string
  readonly #directory: string
  readonly #pids: number[] = []
  #buckets = 0

  private constructor(directory: string, port: number) {
    this.#directory = directory
    this.port = port
    this.credentialsFile = join(directory, 'credentials')
    writeFileSync(this.credentialsFile, `[default]\naws_access_key_id = ${ACCESS_KEY}\naws_secret_access_key = ${SECRET_KEY}\n`)
    this.client = new S3Client({
      region: 'us-east-1',
      endpoint: this.endpoint,
      forcePathStyle: true,
      credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY },
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
    })
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`
  }

  static async start(): Promise<ObjectStore> {
    const directory = mkdtempSync(join(tmpdir(), 'pacsimile-s3-'))
    const store = new ObjectStore(directory, await freePort())
    try {
      await store.#start(await freePort())
      return store
    } catch (error) {
      await store.stop()
      throw error
    }
  }

  async #start(monitorPort: number): Promise<void> {
    const id = randomUUID()
    for (const name of ['mon', 'osd0', 'run', 'log', 'rgw']) mkdirSync(join(this.#directory, name))
    writeFileSync(join(this.#directory, 'ceph.conf'), configuration(this.#directory, id, monitorPort, this.port))
    const map = join(this.#directory, 'monmap')
    this.#run('monmaptool', '--create', '--fsid', id, '--addv', 'a', `[v1:127.0.0.1:${monitorPort}]`, map)
    this.#run('ceph-mon', '-i', 'a', '--mkfs', '--monmap', map)
    this.#daemon('ceph-mon', 'mon.a', '-i', 'a')
    await this.#until('the monitor', () => this.#try('ceph', '--connect-timeout', '5', 'mon', 'stat'))
    const osd = randomUUID()
    this.#run('ceph', 'osd', 'new', osd, '0')
    this.#run('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', osd)
    this.#run('ceph', 'osd', 'crush', 'add-bucket', 'default', 'root')
    this.#run('ceph', 'osd', 'crush', 'add', 'osd.0', '1.0', 'root=default', 'host=h1')
    this.#daemon('ceph-osd', 'osd.0', '-i', '0')
    await this.#until('the disk', () => this.#try('sh', '-c', "ceph osd stat | grep -q '1 up'"))
    this.#run(
      'radosgw-admin',
      'user',
      'create',
      '--uid=test',
      '--display-name=test',
      `--access-key=${ACCESS_KEY}`,
      `--secret-key=${SECRET_KEY}`,
    )
    this.#daemon('radosgw', 'client.rgw.a', '-n', 'client.rgw.a')
    await this.#until('the gateway', () =>
      fetch(this.endpoint).then(
        (answer) => answer.ok,
        () => false,
      ),
    )
  }

  #environment(): NodeJS.ProcessEnv {
    return { ...process.env, CEPH_CONF: join(this.#directory, 'ceph.conf') }
  }

  #try(program: string, ...args: string[]): Promise<boolean> {
    return Promise.resolve(spawnSync(program, args, { env: this.#environment(), timeout: 20_000 }).status === 0)
  }

  #run(program: string, ...args: string[]): void {
    let said = ''
    // A client that has just met its monitor may be told that it asks the wrong cluster.
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const { status, stderr } = spawnSync(program, args, { env: this.#environment(), encoding: 'utf8', timeout: 60_000 })
      if (status === 0) return
      said = stderr
    }
    throw new Error(`${program} ${args.join(' ')}: ${said}`)
  }

  /** They go into the background by themselves, and write down who they are. */
  #daemon(program: string, name: string, ...args: string[]): void {
    this.#run(program, ...args)
    this.#pids.push(Number(readFileSync(join(this.#directory, 'run', `${name}.pid`), 'utf8')))
  }

  async #until(what: string, ask: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + UP_SECONDS_MAX * 1000
    while (!(await ask())) {
      if (Date.now() > deadline) throw new Error(`${what} is not up within ${UP_SECONDS_MAX} s`)
      await setTimeout(100)
    }
  }

  /** A new and empty one. */
  async bucket(options: { readonly lock?: boolean } = {}): Promise<string> {
    const name = `bucket-${++this.#buckets}`
    await this.client.send(new CreateBucketCommand({ Bucket: name, ObjectLockEnabledForBucket: options.lock === true }))
    return name
  }

  async keys(bucket: string): Promise<string[]> {
    const answer = await this.client.send(new ListObjectsV2Command({ Bucket: bucket }))
    return (answer.Contents ?? []).map(({ Key = '' }) => Key)
  }

  async stop(): Promise<void> {
    this.client.destroy()
    for (const pid of this.#pids) process.kill(pid, 'SIGKILL')
    // One that has ended has no program any more, also where nobody has asked for its status yet.
    for (const pid of this.#pids) while (existsSync(`/proc/${pid}/exe`)) await setTimeout(20)
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

function configuration(directory: string, id: string, monitorPort: number, port: number): string {
  return `[global]
fsid = ${id}
mon host = v1:127.0.0.1:${monitorPort}
monmap = ${directory}/monmap
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon warn on pool no redundancy = false
osd crush chooseleaf type = 0
mon max pg per osd = 1000
paxos propose interval = 0.05
paxos min wait = 0.01
run dir = ${directory}/run
admin socket = ${directory}/run/$name.asok
pid file = ${directory}/run/$name.pid
log file = ${directory}/log/$name.log
ms bind msgr2 = false
ms bind ipv6 = false
setuser match path =
[mon.a]
host = ${hostname()}
mon data = ${directory}/mon
[osd.0]
osd data = ${directory}/osd0
osd objectstore = memstore
memstore device bytes = 4294967296
osd class load list = *
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:${port}
rgw data = ${directory}/rgw
rgw dns name = localhost
rgw thread pool size = 64
rgw gc obj min wait = 60
`
}
