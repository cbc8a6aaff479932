import { hash, randomBytes } from 'node:crypto'
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import {
  addKey,
  addRecoveryKey,
  createKeyFile,
  createKeys,
  ensureKeyFile,
  findSlots,
  openKeys,
  type RepositorySecret,
  readKeyFile,
  removeKey,
} from '../../collector/repository/keys.ts'
import { formatRecoveryKey, parseRecoveryKey } from '../../collector/repository/recovery-key.ts'

const REPOSITORY = '0123456789abcdef0123456789abcdef'

function directory(): string {
  const made = mkdtempSync(join(tmpdir(), 'keys-'))
  onTestFinished(() => rmSync(made, { recursive: true, force: true }))
  return made
}

/** A repository that opens with a key file and a recovery key. */
function repository() {
  const home = directory()
  const file = join(home, 'repository.key')
  createKeyFile(file)
  const made = createKeys(home, REPOSITORY, { kind: 'key-file', file })
  return { home, file, ...made }
}

function slotOf(home: string, kind: string): { file: string; name: string; slot: Record<string, unknown> } {
  for (const name of readdirSync(join(home, 'keys'))) {
    const file = join(home, 'keys', name)
    const slot = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>
    if (slot['kind'] === kind) return { file, name, slot }
  }
  throw new Error(`No slot of kind ${kind}`)
}

describe('the data key', () => {
  it('opens with the passphrase, however its accents were typed, and with the recovery key', () => {
    const home = directory()
    const { dataKey, recoveryKey } = createKeys(home, REPOSITORY, { kind: 'passphrase', passphrase: 'caf\u00e9 au lait' })
    expect(openKeys(home, REPOSITORY, { kind: 'passphrase', passphrase: 'cafe\u0301 au lait' })).toEqual(dataKey)
    expect(openKeys(home, REPOSITORY, { kind: 'recovery', recoveryKey })).toEqual(dataKey)
  })

  it('opens with the key file and with the recovery key', () => {
    const { home, file, dataKey, recoveryKey } = repository()
    expect(openKeys(home, REPOSITORY, { kind: 'key-file', file })).toEqual(dataKey)
    expect(openKeys(home, REPOSITORY, { kind: 'recovery', recoveryKey })).toEqual(dataKey)
    expect(statSync(file).mode & 0o777).toBe(0o600)
  })

  it('does not open with another passphrase, key file or recovery key', () => {
    const home = directory()
    createKeys(home, REPOSITORY, { kind: 'passphrase', passphrase: 'right' })
    const { home: other, recoveryKey } = repository()
    const file = join(home, 'other.key')
    createKeyFile(file)
    const wrong = expect.objectContaining({ code: 'key-wrong' })
    expect(() => openKeys(home, REPOSITORY, { kind: 'passphrase', passphrase: 'wrong' })).toThrow(wrong)
    expect(() => openKeys(home, REPOSITORY, { kind: 'recovery', recoveryKey })).toThrow(wrong)
    expect(() => openKeys(other, REPOSITORY, { kind: 'key-file', file })).toThrow(wrong)
  })

  it('does not open in another repository', () => {
    const { home, file } = repository()
    const elsewhere = REPOSITORY.replace('0', 'f')
    expect(() => openKeys(home, elsewhere, { kind: 'key-file', file })).toThrow(/of another repository/)
  })

  it('is in no file', () => {
    const { home, dataKey } = repository()
    for (const name of readdirSync(join(home, 'keys'))) {
      const text = readFileSync(join(home, 'keys', name), 'utf8')
      expect(text).not.toContain(dataKey.toString('base64'))
      expect(text).not.toContain(dataKey.toString('hex'))
    }
  })

  it('is made once', () => {
    const { home, file, dataKey } = repository()
    expect(() => createKeys(home, REPOSITORY, { kind: 'key-file', file })).toThrow(expect.objectContaining({ code: 'already-exists' }))
    expect(openKeys(home, REPOSITORY, { kind: 'key-file', file })).toEqual(dataKey)
  })
})

describe('the worked example of the description, which another program made', () => {
  const description = readFileSync(join(import.meta.dirname, '../../docs/format.md'), 'utf8')
  const slots = [...description.matchAll(/```json\n(\{\n {2}"version": 1[^`]*)```/g)].map(([, text = '']) => text)

  function example(): string {
    const home = directory()
    mkdirSync(join(home, 'keys'))
    for (const text of slots) writeFileSync(join(home, 'keys', `${(JSON.parse(text) as { id: string }).id}.json`), text)
    writeFileSync(join(home, 'example.key'), `${/pacsimile-key-1:[0-9a-f]{64}/.exec(description)?.[0] ?? ''}\n`)
    return home
  }

  const secrets: [string, (home: string) => RepositorySecret][] = [
    ['key file', (home) => ({ kind: 'key-file', file: join(home, 'example.key') })],
    ['passphrase', () => ({ kind: 'passphrase', passphrase: 'café au lait' })],
    ['recovery key', () => ({ kind: 'recovery', recoveryKey: /(?:[0-9A-Z]{4}-){14}[0-9A-Z]{4}/.exec(description)?.[0] ?? '' })],
  ]

  it.each(secrets)('opens with its %s', (_, secret) => {
    const home = example()
    expect(openKeys(home, REPOSITORY, secret(home))).toEqual(Buffer.alloc(32, 0x42))
  })
})

describe('a damaged slot', () => {
  it('never opens, is named, and leaves the other way in, whichever byte is flipped', () => {
    const { home, file, dataKey, recoveryKey } = repository()
    const damaged = slotOf(home, 'key-file')
    const bytes = readFileSync(damaged.file)
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes)
      flipped[at] = (flipped[at] ?? 0) ^ 0x01
      // White space between the fields says nothing.
      if (JSON.stringify(parsed(flipped)) === JSON.stringify(parsed(bytes))) continue
      writeFileSync(damaged.file, flipped)
      const named = expect.objectContaining({ code: 'key-wrong', message: expect.stringContaining(damaged.name) })
      expect(() => openKeys(home, REPOSITORY, { kind: 'key-file', file })).toThrow(named)
    }
    expect(openKeys(home, REPOSITORY, { kind: 'recovery', recoveryKey })).toEqual(dataKey)
  })

  it('under the name of another is not taken for it', () => {
    const { home, file } = repository()
    const { file: slotFile } = slotOf(home, 'key-file')
    writeFileSync(join(home, 'keys', '00000000.json'), readFileSync(slotFile))
    rmSync(slotFile)
    expect(() => openKeys(home, REPOSITORY, { kind: 'key-file', file })).toThrow(/00000000\.json/)
  })

  it('that asks for all memory is refused before it is tried', () => {
    const home = directory()
    createKeys(home, REPOSITORY, { kind: 'passphrase', passphrase: 'right' })
    const { file, slot } = slotOf(home, 'passphrase')
    writeFileSync(file, JSON.stringify({ ...slot, kdf: { ...(slot['kdf'] as object), memoryKiB: 2 ** 31 } }))
    expect(() => openKeys(home, REPOSITORY, { kind: 'passphrase', passphrase: 'right' })).toThrow(/memoryKiB/)
  })

  it('of a newer version is called that', () => {
    const { home, file } = repository()
    const found = slotOf(home, 'key-file')
    writeFileSync(found.file, JSON.stringify({ ...found.slot, version: 2 }))
    expect(() => openKeys(home, REPOSITORY, { kind: 'key-file', file })).toThrow(/version 2/)
  })
})

function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return 'not JSON'
  }
}

describe('a recovery key', () => {
  const key = Buffer.from('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'hex')

  it('reads back, for every key', () => {
    const keys = fc.uint8Array({ minLength: 32, maxLength: 32 })
    fc.assert(fc.property(keys, (bytes) => parseRecoveryKey(formatRecoveryKey(bytes)).equals(bytes)))
  })

  it('is 15 groups of 4, as another base32 writes them', () => {
    expect(formatRecoveryKey(key)).toBe('000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFG-CC6W-TAB6')
  })

  it('may be typed in small letters, without dashes, with O, I and L', () => {
    const typed = formatRecoveryKey(key).toLowerCase().replaceAll('-', ' ').replaceAll('0', 'o').replace('1', 'l').replace('1', 'I')
    expect(parseRecoveryKey(` ${typed}\n`)).toEqual(key)
  })

  it('with any one character wrong, or two exchanged, is called mistyped and not wrong', () => {
    const text = formatRecoveryKey(randomBytes(32))
    const mistyped = expect.objectContaining({ code: 'usage', message: expect.stringContaining('mistyped') })
    for (let i = 0; i < text.length; i++) {
      if (text[i] === '-') continue
      const replaced = text.slice(0, i) + (text[i] === 'Z' ? 'Y' : 'Z') + text.slice(i + 1)
      expect(() => parseRecoveryKey(replaced)).toThrow(mistyped)
      const exchanged = text.slice(0, i) + (text[i + 1] ?? '') + (text[i] ?? '') + text.slice(i + 2)
      if (text[i + 1] !== undefined && text[i + 1] !== '-' && text[i + 1] !== text[i]) {
        expect(() => parseRecoveryKey(exchanged)).toThrow(mistyped)
      }
    }
    expect(() => parseRecoveryKey(text.slice(1))).toThrow(/59 characters/)
    expect(() => parseRecoveryKey(text.replace(/^./, 'U'))).toThrow(/"U"/)
  })
})

describe('a key file', () => {
  it('is text with 64 hex digits', () => {
    const file = join(directory(), 'repository.key')
    createKeyFile(file)
    expect(readFileSync(file, 'utf8')).toMatch(/^pacsimile-key-1:[0-9a-f]{64}\n$/)
    expect(hash('sha256', readKeyFile(file))).toBe(hash('sha256', Buffer.from(readFileSync(file, 'utf8').slice(16, 80), 'hex')))
  })

  it('is never overwritten', () => {
    const file = join(directory(), 'repository.key')
    createKeyFile(file)
    expect(() => createKeyFile(file)).toThrow(expect.objectContaining({ code: 'already-exists' }))
  })

  it('that is missing or something else is said to be so', () => {
    const file = join(directory(), 'repository.key')
    expect(existsSync(file)).toBe(false)
    expect(() => readKeyFile(file)).toThrow(expect.objectContaining({ code: 'key-missing' }))
    writeFileSync(file, 'pacsimile-key-1:1234\n')
    expect(() => readKeyFile(file)).toThrow(expect.objectContaining({ code: 'format-invalid' }))
  })
})

describe('the ways into a repository', () => {
  const kinds = (home: string): string[] =>
    findSlots(home, REPOSITORY)
      .map(({ slot }): string => slot?.kind ?? 'damaged')
      .toSorted()
  const idOf = (home: string, kind: string): string => slotOf(home, kind).name.slice(0, 8)

  it('are listed without a secret, with those that are damaged', () => {
    const { home } = repository()
    expect(kinds(home)).toEqual(['key-file', 'recovery'])
    const { file, slot } = slotOf(home, 'recovery')
    writeFileSync(file, JSON.stringify({ ...slot, wrapped: Buffer.alloc(48).toString('base64') }))
    const damaged = findSlots(home, REPOSITORY).find((found) => found.slot === undefined)
    expect(damaged?.id).toBe(slot['id'])
    expect(damaged?.damage).toMatch(/checksum/)
    renameSync(file, join(home, 'keys', '00000000.json'))
    expect(findSlots(home, REPOSITORY)[0]).toMatchObject({ id: '00000000', slot: undefined })
  })

  it('become more, each opening the same data key, whichever was used to add it', async () => {
    const { home, file, dataKey, recoveryKey } = repository()
    const added: RepositorySecret = { kind: 'passphrase', passphrase: 'caf\u00e9 au lait' }
    addKey(home, REPOSITORY, { kind: 'key-file', file }, added)
    let shown = ''
    await addRecoveryKey(home, REPOSITORY, { kind: 'recovery', recoveryKey }, async (second) => {
      shown = second.recoveryKey
      await Promise.resolve()
    })
    expect(openKeys(home, REPOSITORY, { kind: 'passphrase', passphrase: 'cafe\u0301 au lait' })).toEqual(dataKey)
    expect(openKeys(home, REPOSITORY, { kind: 'recovery', recoveryKey: shown })).toEqual(dataKey)
    expect(openKeys(home, REPOSITORY, { kind: 'recovery', recoveryKey })).toEqual(dataKey)
    expect(kinds(home)).toEqual(['key-file', 'passphrase', 'recovery', 'recovery'])
  })

  it('lead in again when the key file is lost and a recovery key is at hand, and not without', () => {
    const { home, file, dataKey, recoveryKey } = repository()
    rmSync(file)
    const other = join(home, 'other.key')
    createKeyFile(other)
    const added: RepositorySecret = { kind: 'key-file', file: other }
    expect(() => addKey(home, REPOSITORY, added, added)).toThrow(expect.objectContaining({ code: 'key-wrong' }))
    expect(() => openKeys(home, REPOSITORY, added)).toThrow(expect.objectContaining({ code: 'key-wrong' }))
    addKey(home, REPOSITORY, { kind: 'recovery', recoveryKey }, added)
    expect(openKeys(home, REPOSITORY, added)).toEqual(dataKey)
  })

  it('are not added twice', () => {
    const { home, file } = repository()
    const secret: RepositorySecret = { kind: 'key-file', file }
    expect(() => addKey(home, REPOSITORY, secret, secret)).toThrow(expect.objectContaining({ code: 'already-exists' }))
    expect(kinds(home)).toHaveLength(2)
  })

  it('become fewer, but never none of either kind, nor without the one that is used', () => {
    const { home, file, recoveryKey } = repository()
    const byFile: RepositorySecret = { kind: 'key-file', file }
    const byRecovery: RepositorySecret = { kind: 'recovery', recoveryKey }
    const [fileId, recoveryId] = [idOf(home, 'key-file'), idOf(home, 'recovery')]
    const refused = (opening: RepositorySecret, id: string, words: RegExp): void =>
      expect(() => removeKey(home, REPOSITORY, opening, id)).toThrow(expect.objectContaining({ message: expect.stringMatching(words) }))
    refused(byFile, fileId, /is the one that this key-file opens/)
    refused(byFile, recoveryId, /the last recovery key/)
    refused(byRecovery, fileId, /the last passphrase or key file/)
    refused(byFile, '00000000', /There is no key slot 00000000; there are/)
    addKey(home, REPOSITORY, byFile, { kind: 'passphrase', passphrase: 'another' })
    removeKey(home, REPOSITORY, byRecovery, fileId)
    expect(() => openKeys(home, REPOSITORY, byFile)).toThrow(expect.objectContaining({ code: 'key-wrong' }))
    expect(kinds(home)).toEqual(['passphrase', 'recovery'])
    refused({ kind: 'recovery', recoveryKey: formatRecoveryKey(randomBytes(32)) }, recoveryId, /opens no key slot/)
  })

  it('do not count where they are damaged: such a slot may go, and the last whole one may not', async () => {
    const { home, file, recoveryKey } = repository()
    const byRecovery: RepositorySecret = { kind: 'recovery', recoveryKey }
    await addRecoveryKey(home, REPOSITORY, { kind: 'key-file', file }, () => Promise.resolve())
    addKey(home, REPOSITORY, byRecovery, { kind: 'passphrase', passphrase: 'another' })
    const damaged = slotOf(home, 'passphrase')
    writeFileSync(damaged.file, '{}')
    expect(() => removeKey(home, REPOSITORY, byRecovery, idOf(home, 'key-file'))).toThrow(/the last passphrase or key file/)
    removeKey(home, REPOSITORY, byRecovery, damaged.name.slice(0, 8))
    expect(kinds(home)).toEqual(['key-file', 'recovery', 'recovery'])
  })

  it('have no slot for a recovery key that could not be shown', async () => {
    const { home, file } = repository()
    const unseen = addRecoveryKey(home, REPOSITORY, { kind: 'key-file', file }, () => Promise.reject(new Error('no paper')))
    await expect(unseen).rejects.toThrow('no paper')
    expect(kinds(home)).toEqual(['key-file', 'recovery'])
  })

  it('leave nothing behind that opens under another name, whatever was killed in between', () => {
    const { home, file, recoveryKey } = repository()
    const byFile: RepositorySecret = { kind: 'key-file', file }
    const id = addKey(home, REPOSITORY, byFile, { kind: 'passphrase', passphrase: 'another' })
    const slot = join(home, 'keys', `${id}.json`)
    linkSync(slot, join(home, 'keys', `.pacsimile-tmp-${id}.json-0123456789ab`))
    linkSync(slot, join(home, 'keys', '.pacsimile-tmp-00000000.json-0123456789ab'))
    removeKey(home, REPOSITORY, { kind: 'recovery', recoveryKey }, id)
    expect(readdirSync(join(home, 'keys'))).toHaveLength(2)
    linkSync(file, join(home, '.pacsimile-tmp-repository.key-0123456789ab'))
    linkSync(file, join(home, '.pacsimile-tmp-other.key-0123456789ab'))
    const before = readKeyFile(file)
    ensureKeyFile(file)
    expect(readKeyFile(file)).toEqual(before)
    expect(readdirSync(home).sort()).toEqual(['.pacsimile-tmp-other.key-0123456789ab', 'keys', 'repository.key'])
  })
})
