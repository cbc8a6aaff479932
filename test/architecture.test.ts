/**
 * The rules of ARCHITECTURE.md that a compiler does not hold: who may import whom, which file is the only door to a
 * heavy package, what files may be called and how long they may grow.
 *
 * A rule is a function of a path and its text, so each is shown below to refuse a made-up offence as well as to pass the sources.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = dirname(import.meta.dirname)
const SOURCES = ['agent', 'collector', 'shared']
const LINES_MAX = 400

/** What the files below a directory may import from the project. The longest prefix that fits a file decides. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  'shared/': ['shared/'],
  'agent/': ['agent/', 'shared/'],
  'collector/': ['collector/', 'shared/'],
  'collector/cli/': ['collector/', 'agent/', 'shared/'],
}

/** What only the files below a directory itself may import. */
const INNER = 'collector/cli/'

/** The only files that may import a package. A name that ends in a slash stands for the whole directory. */
const DOORS: Record<string, readonly string[]> = {
  '@aws-sdk/client-s3': ['collector/repository/copy-s3.ts'],
  '@napi-rs/blake-hash': ['shared/digest.ts'],
  '@peculiar/x509': ['shared/certificate.ts'],
  'cbor-x': ['shared/wire.ts'],
  'chokidar': ['agent/watch/chokidar-worker.ts'],
  'classic-level': ['agent/database.ts', 'collector/catalog.ts'],
  'dicom-parser': ['shared/dicom.ts'],
  'ignore': ['agent/watch/ignore.ts'],
  'koffi': [
    'shared/libc.ts',
    'shared/zstd-calls.ts',
    'agent/system-calls.ts',
    'agent/descriptor-calls.ts',
    'agent/priority.ts',
    'agent/watch/fanotify-calls.ts',
    'collector/mount-calls.ts',
  ],
  'reflect-metadata': ['shared/certificate.ts'],
  'smol-toml': ['shared/config.ts'],
  'winston': ['shared/log.ts'],
  'ws': ['agent/uplink.ts', 'collector/receiver.ts'],
  'yargs': ['collector/cli/'],
}

/** Packages that describe values rather than reach the outside, usable everywhere. */
const OPEN = ['zod']

/** Words that say nothing about what a file holds. */
const EMPTY_WORDS = new Set(['manager', 'service', 'handler', 'helper', 'util', 'common', 'misc', 'base', 'abstract', 'impl'])

const TOP_LEVEL = new Set(
  `agent collector shared test systemd docs .ci
  package.json package-lock.json tsconfig.json tsconfig.base.json vitest.config.ts knip.json biome.json
  .oxlintrc.json .editorconfig .gitignore .npmrc
  README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE`.split(/\s+/),
)

/** Made by tools and ignored by git. */
const MADE_BY_TOOLS = new Set(['.git', 'node_modules', 'dist', 'coverage', '.vscode', '.idea'])

function importsOf(source: string): string[] {
  return [...source.matchAll(/(?<![.\w'"-])(?:from\s*|import\s*\(?\s*)(['"])([^'"\n]+)\1/g)].flatMap(([, , specifier]) => specifier ?? [])
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
}

function importViolations(file: string, source: string): string[] {
  return importsOf(source).flatMap((specifier) => {
    if (specifier.startsWith('node:')) return []
    const allowed = specifier.startsWith('.') ? mayImportFile(file, specifier) : mayImportPackage(file, packageOf(specifier))
    return allowed ? [] : [`${file} must not import ${specifier}`]
  })
}

function mayImportFile(file: string, specifier: string): boolean {
  const target = posix.join(posix.dirname(file), specifier)
  const side = Object.keys(MAY_IMPORT)
    .filter((prefix) => file.startsWith(prefix))
    .toSorted((a, b) => b.length - a.length)[0]
  const allowed = side === undefined ? [] : (MAY_IMPORT[side] ?? [])
  if (target.startsWith(INNER) && side !== INNER) return false
  return allowed.some((prefix) => target.startsWith(prefix))
}

function mayImportPackage(file: string, name: string): boolean {
  const doors = DOORS[name]
  if (doors === undefined) return OPEN.includes(name)
  return doors.some((door) => (door.endsWith('/') ? file.startsWith(door) : file === door))
}

function nameViolations(file: string): string[] {
  const words = posix
    .basename(file)
    .toLowerCase()
    .split(/[^a-z]+/)
  const empty = words.find((word) => EMPTY_WORDS.has(word) || EMPTY_WORDS.has(word.replace(/s$/, '')))
  const violations = empty === undefined ? [] : [`${file}: "${empty}" does not say what the file holds`]
  if (!/^[a-z0-9-]+(\.[a-z0-9-]+)*$/.test(posix.basename(file))) violations.push(`${file} is not named in kebab-case`)
  return violations
}

function lengthViolations(file: string, source: string): string[] {
  const lines = source.split('\n').length - 1
  return lines > LINES_MAX ? [`${file} has ${lines} lines, more than ${LINES_MAX}: a noun is missing`] : []
}

function topLevelViolations(entries: readonly string[]): string[] {
  return entries.filter((entry) => !TOP_LEVEL.has(entry) && !MADE_BY_TOOLS.has(entry) && !/\.(log|tgz)$/.test(entry))
}

function filesBelow(...directories: string[]): Array<{ file: string; source: string }> {
  return directories
    .flatMap((directory) =>
      readdirSync(join(ROOT, directory), { recursive: true, encoding: 'utf8' }).map((name) => posix.join(directory, name)),
    )
    .filter((file) => file.endsWith('.ts'))
    .toSorted()
    .map((file) => ({ file, source: readFileSync(join(ROOT, file), 'utf8') }))
}

describe('the sources', () => {
  const sources = filesBelow(...SOURCES)

  it('are found', () => {
    expect(new Set(sources.map(({ file }) => file.split('/')[0]))).toEqual(new Set(SOURCES))
  })

  it('import only what their side and their doors allow', () => {
    expect(sources.flatMap(({ file, source }) => importViolations(file, source))).toEqual([])
  })

  it('are named after what they hold', () => {
    expect([...sources, ...filesBelow('test')].flatMap(({ file }) => nameViolations(file))).toEqual([])
  })

  it(`have at most ${LINES_MAX} lines each`, () => {
    expect(sources.flatMap(({ file, source }) => lengthViolations(file, source))).toEqual([])
  })
})

describe('the project', () => {
  it('has nothing at its top level that is not listed', () => {
    expect(topLevelViolations(readdirSync(ROOT))).toEqual([])
  })

  it('has a rule for every dependency', () => {
    const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { dependencies: Record<string, string> }
    expect(Object.keys(dependencies).toSorted()).toEqual([...Object.keys(DOORS), ...OPEN].toSorted())
  })

  it('depends on exact versions only', () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, Record<string, string>>
    const versions = ['dependencies', 'optionalDependencies', 'devDependencies', 'overrides'].flatMap((key) =>
      Object.entries(manifest[key] ?? {}),
    )
    expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([])
  })
})

describe('the rules', () => {
  it.each([
    ['shared/tree.ts', `import { Journal } from '../agent/journal.ts'`],
    ['shared/tree.ts', `export * from '../collector/catalog.ts'`],
    ['agent/uplink.ts', `import type { Receiver } from '../collector/receiver.ts'`],
    ['agent/watch/chokidar.ts', `await import('../../collector/cli/main.ts')`],
    ['collector/ingest.ts', `import { Spool } from "../agent/spool.ts"`],
    ['collector/ingest.ts', `import { table } from './cli/table.ts'`],
    ['collector/ingest.ts', `import '../test/support/truth.ts'`],
    ['collector/cli/demo.ts', `import { truth } from '../../test/support/truth.ts'`],
    ['agent/spool.ts', `import { ClassicLevel } from 'classic-level'`],
    ['collector/repository/pack.ts', `import {\n  blake3,\n  Blake3Hasher,\n} from '@napi-rs/blake-hash'`],
    ['shared/link.ts', `const { WebSocket } = await import('ws')`],
    ['collector/collector.ts', `import yargs from 'yargs/yargs'`],
    ['agent/scan.ts', `import something from 'not-listed'`],
  ])('refuse in %s: %s', (file, source) => {
    expect(importViolations(file, source)).toHaveLength(1)
  })

  it.each([
    ['shared/tree.ts', `import { digestOf } from './digest.ts'\nimport { join } from 'node:path'`],
    [
      'agent/watch/chokidar-worker.ts',
      `import { watch } from 'chokidar'\nimport { limits } from '../../shared/limits.ts'\nBuffer.from('pixels')`,
    ],
    ['collector/cli/agent-run.ts', `import yargs from 'yargs'\nconst { Agent } = await import('../../agent/agent.ts')`],
    ['collector/repository/keys.ts', `import { z } from 'zod'\nimport { Catalog } from '../catalog.ts'`],
  ])('allow in %s: %s', (file, source) => {
    expect(importViolations(file, source)).toEqual([])
  })

  it.each([
    'agent/util.ts',
    'agent/path-utils.ts',
    'collector/restore-manager.ts',
    'test/support/helpers.ts',
    'shared/logService.ts',
    'shared/Tree.ts',
  ])('refuse the name %s', (file) => {
    expect(nameViolations(file)).not.toEqual([])
  })

  it.each(['agent/watch/watcher.ts', 'collector/database.ts', 'test/architecture.test.ts'])('allow the name %s', (file) => {
    expect(nameViolations(file)).toEqual([])
  })

  it('refuse a file that is a line too long', () => {
    expect(lengthViolations('agent/long.ts', '\n'.repeat(LINES_MAX))).toEqual([])
    expect(lengthViolations('agent/long.ts', '\n'.repeat(LINES_MAX + 1))).toHaveLength(1)
  })

  it('refuse an unlisted entry at the top level', () => {
    expect(topLevelViolations(['agent', 'node_modules', 'src'])).toEqual(['src'])
  })
})
