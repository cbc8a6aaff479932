/** History read and restored on another host: by the commands, by rclone and by davfs2, while a network is cut and a certificate revoked. */
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { CuttingProxy } from '../support/cutting-proxy.ts'
import { enrolRestorer } from '../support/restorer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { type WalkedEntry, walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { Random } from '../support/workload.ts'

const VOLUME = 'pacs1:images'
const LIMIT = { timeout: 240_000 }
const EXIT_DAMAGE = 3
const EXIT_UNREACHABLE = 5
const EXIT_REFUSED = 6
/** Files, and the length of their names: what asks for a batch of their contents is some 300 KB. */
const FILES = 2500
const NAME = 'x'.repeat(200)
const CUT_AFTER_BYTES = 600_000
const NS_PER_S = 1_000_000_000n

interface Restored {
  readonly files: number
  readonly kept: number
  readonly fromReplica: number
  readonly missing: readonly unknown[]
}

/** What WebDAV has words for: files and directories, times to the second. */
function plain(tree: ReadonlyMap<string, WalkedEntry>): Record<string, string> {
  const shown = [...tree].filter(
    ([path, { kind }]) => path !== '' && (kind === 'file' || kind === 'directory') && !path.startsWith('lost+found'),
  )
  return Object.fromEntries(
    shown.map(([path, { kind, content, mtimeNs }]) => [path, kind === 'file' ? `${content} ${mtimeNs / NS_PER_S}` : kind]),
  )
}

/** In a mount namespace of its own, where the collector's name is that of this host. */
function inNamespace(directory: string, script: string): string {
  const hosts = join(directory, 'hosts')
  writeFileSync(hosts, `${readFileSync('/etc/hosts', 'utf8')}\n127.0.0.1 pacsimile-collector\n`)
  const done = spawnSync('unshare', ['-m', 'sh', '-ec', `mount --bind ${hosts} /etc/hosts\n${script}`], {
    cwd: directory,
    encoding: 'utf8',
  })
  if (done.status !== 0) throw new Error(`it ended with ${done.status}: ${done.stdout}${done.stderr}`)
  return done.stdout
}

describe('another host', () => {
  it('reads and restores what the collector has, goes on after a cut, and ends with its certificate', LIMIT, async () => {
    const source = join(scratchDirectory(), 'images')
    mkdirSync(join(source, 'study'), { recursive: true })
    for (let i = 0; i < FILES; i++) writeFileSync(join(source, 'study', `${NAME}${i}`), `content ${i}`)
    symlinkSync('study', join(source, 'link'))
    const site = await Site.watching({ source })
    const { installation } = site
    const near = ['--data', installation.data]
    installation.run('mark', VOLUME, 'before', ...near)
    const truth = walkTree(source)
    rmSync(join(source, 'study', `${NAME}7`))
    writeFileSync(join(source, 'study', `${NAME}8`), 'changed')
    await site.wait()
    await site.stop()

    const proxy = await CuttingProxy.to(installation.port)
    const identity = enrolRestorer(installation, 'host', 'pacs1', proxy.port)
    const far = ['--collector', `https://127.0.0.1:${proxy.port}`, '--identity', identity]
    const target = `${VOLUME}/study/${NAME}8`
    for (const command of [
      ['ls', VOLUME, '-R', '--at', 'mark:before'],
      ['cat', target, '--at', 'mark:before'],
      ['log', VOLUME],
      ['history', target],
      ['diff', VOLUME, '--from', 'mark:before', '--to', 'now'],
      ['window', VOLUME],
    ])
      expect(installation.run(...command, '--json', ...far).stdout, command.join(' ')).toBe(
        installation.run(...command, '--json', ...near).stdout,
      )

    // On a host that has no collector it is where the certificate is from.
    if (!existsSync('/var/lib/pacsimile/collector')) {
      const stored = installation.run('ls', VOLUME, '--identity', identity)
      expect(stored.stderr).toContain(`Reading from wss://127.0.0.1:${proxy.port} as the restorer host.`)
      expect(stored.stdout).toContain('study')
    }

    const to = join(scratchDirectory(), 'restored')
    const restore = ['restore', VOLUME, '--at', 'mark:before', '--to', to, '--json', ...far]
    proxy.cutAfter(CUT_AFTER_BYTES)
    const cut = installation.try(...restore)
    expect(cut.status, cut.stderr).toBe(EXIT_UNREACHABLE)
    expect(proxy.cuts).toBe(1)
    proxy.restore()
    const report = installation.json(...restore.filter((word) => word !== '--json')) as Restored
    expect(report).toMatchObject({ files: FILES, fromReplica: 0, missing: [] })
    expect(report.kept).toBeGreaterThan(0)
    expect(differences(truth, walkTree(to))).toEqual([])

    installation.run('restorer', 'revoke', 'host', ...near)
    const refused = installation.try('ls', VOLUME, ...far)
    expect(refused.status).toBe(EXIT_REFUSED)
    expect(refused.stderr).toContain('revoked')

    // Who read what is as it was written, up to the end of the collector, and one line less is noticed.
    await installation.kill('collector', 'SIGTERM')
    const days = join(installation.data, 'access')
    const [day = ''] = readdirSync(days).toSorted().slice(-1)
    const lines = readFileSync(join(days, day), 'utf8')
    const bytes = Buffer.byteLength(lines)
    const checked = installation.json('check', ...near) as {
      access: { lines: number; unchained: number; anchored: unknown; broken: unknown }
    }
    expect(checked.access).toMatchObject({ unchained: 0, anchored: { day: day.slice(0, 10), bytes }, broken: null })
    expect(checked.access.lines).toBeGreaterThan(10)
    writeFileSync(join(days, day), lines.split('\n').slice(0, -2).join('\n').concat('\n'))
    const short = installation.try('check', ...near)
    expect(short.status).toBe(EXIT_DAMAGE)
    expect(short.stdout).toContain(`access/${day}, line ${lines.split('\n').length - 1}: lines are missing here that the ledger knows of`)
  })

  const hasClients = ['rclone', 'mount.davfs'].every((program) => spawnSync('which', [program]).status === 0)
  const isSkipped = !(hasClients && process.getuid?.() === 0) && process.env['CI'] === undefined

  it.skipIf(isSkipped)('opens a past moment with rclone and davfs2, and finds what was there', LIMIT, async () => {
    const source = join(scratchDirectory(), 'images')
    const random = new Random(11)
    mkdirSync(join(source, 'empty'), { recursive: true })
    mkdirSync(join(source, '2026/11 <&"\' %41'), { recursive: true })
    for (let i = 0; i < 30; i++) writeFileSync(join(source, `2026/11 <&"' %41/${i}+caf\u00e9.dcm`), random.bytes(random.below(100_000)))
    writeFileSync(join(source, 'large'), random.bytes(20_000_000))
    writeFileSync(join(source, 'zero'), '')
    const site = await Site.watching({ source })
    const { installation } = site
    const near = ['--data', installation.data]
    installation.run('mark', VOLUME, 'before', ...near)
    const truth = plain(walkTree(source))
    rmSync(join(source, '2026'), { recursive: true })
    writeFileSync(join(source, 'large'), 'changed')
    await site.wait()
    await site.stop()

    const identity = enrolRestorer(installation, 'clients', 'pacs1')
    const { password } = installation.json('restorer', 'password', 'clients', ...near) as { password: string }
    const url = `https://pacsimile-collector:${installation.port}/dav/pacs1/images/@mark:before`
    const directory = scratchDirectory()
    const made = (name: string): string => {
      mkdirSync(join(directory, name))
      return join(directory, name)
    }
    const tls = `--ca-cert ${identity}/ca.crt --client-cert ${identity}/restorer.crt --client-key ${identity}/restorer.key`
    const copied = made('rclone')
    inNamespace(directory, `rclone copy --config /dev/null --create-empty-src-dirs ${tls} --webdav-url '${url}' :webdav: ${copied}`)
    expect(plain(walkTree(copied))).toEqual(truth)

    // What davfs2 reads as a user of its own, it must be able to read.
    chmodSync(directory, 0o755)
    copyFileSync(join(identity, 'ca.crt'), join(directory, 'ca.crt'))
    chmodSync(join(directory, 'ca.crt'), 0o644)
    chmodSync(made('cache'), 0o777)
    writeFileSync(join(directory, 'secrets'), `${url} clients ${password}\n`, { mode: 0o600 })
    const settings = { trust_ca_cert: 'ca.crt', secrets: 'secrets', cache_dir: 'cache' }
    const lines = Object.entries(settings).map(([key, file]) => `${key} ${join(directory, file)}`)
    // Kernels ask for more of a directory at once than davfs2 takes by itself.
    writeFileSync(join(directory, 'davfs2.conf'), `${lines.join('\n')}\nuse_locks 0\nbuf_size 256\n`)
    const [mounted, seen] = [made('mounted'), made('davfs2')]
    inNamespace(
      directory,
      `mount.davfs -o ro,conf=${directory}/davfs2.conf '${url}' ${mounted}\ncp -a ${mounted}/. ${seen}\numount ${mounted}`,
    )
    expect(plain(walkTree(seen))).toEqual(truth)
  })
})
