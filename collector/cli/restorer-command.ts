/**
 * `pacsimile restorer`: who may read history from other hosts, made, listed and ended at the collector, and enrolled on the other host.
 *
 * Invariant: a secret goes to stdout alone and once, what it is good for to stderr. It prevents scripts from having to cut it out of a
 * sentence, and a list that tells what it should not.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import { label } from '../../shared/path.ts'
import { restorerState } from '../certificate-term.ts'
import type { Identity } from '../identity.ts'
import { showLocalTime, showMoment } from '../point.ts'
import type { EnrolledRestorer } from '../restorer-identity.ts'
import type { Restorer } from '../restorers.ts'
import { askCollector } from './admin-call.ts'
import { showAge, showDuration, showWhen } from './amounts.ts'
import { parseDuration } from './duration.ts'
import { isoTime, sayJson } from './json.ts'
import { dataOption, identityOption, jsonOption, withExamples } from './options.ts'
import { note, paint, say } from './output.ts'
import { type Column, sayTable } from './table.ts'

const COLUMNS: readonly Column[] = [
  { title: 'RESTORER' },
  { title: 'STATE' },
  { title: 'EXPIRES' },
  { title: 'PASSWORD' },
  { title: 'LAST USE' },
  { title: 'MAY READ' },
]
/** How long a certificate is good where nobody says. */
const VALID_MS = 90 * 24 * 3_600_000
const NAME = { type: 'string', demandOption: true, describe: 'Name of the restorer' } as const

export function restorerCommand(yargs: Argv): Argv {
  return yargs.command('restorer', 'Who may read history from other hosts', (group) =>
    passwordCommand(revokeCommand(listCommand(enrollCommand(tokenCommand(group))))).demandCommand(
      1,
      'Name what to do: token, enroll, list, revoke or password',
    ),
  )
}

function tokenCommand(yargs: Argv): Argv {
  return yargs.command(
    'token <name>',
    'At the collector: make a token that enrols one host as a restorer, once',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('name', NAME)
          .option('allow', {
            type: 'array',
            string: true,
            describe:
              'What it may read: all, AGENT or AGENT:VOLUME; may be given several times. Without it a restorer gets what it has, for as long as that was given',
          })
          .option('ttl', { type: 'string', describe: 'How long the token is valid', default: '1h', requiresArg: true })
          .option('valid', {
            type: 'string',
            describe: 'How long the certificate is valid; with --allow 90d by default',
            requiresArg: true,
          }),
        'restorer token pacs1-host --allow pacs1',
        'restorer token pacs1-host',
        'restorer token radiology --allow pacs1:images --allow pacs2:images --valid 7d',
      ),
    async ({ data, name, allow, ttl, valid, json }) => {
      const { createToken, openIdentity } = await import('../identity.ts')
      const ttlMs = parseDuration(ttl, '--ttl')
      const before = allow === undefined ? termsOf(openIdentity(resolve(data)).restorers.find(name), name) : undefined
      const allowed = allow ?? before?.allowed ?? []
      const validMs = valid === undefined ? (before?.validMs ?? VALID_MS) : parseDuration(valid, '--valid')
      const token = createToken(resolve(data), { ttlMs, restorer: { name, allowed, validMs } })
      if (json) {
        sayJson({ token, restorer: name, allowed })
        return
      }
      say(token)
      note(
        `Good once, for ${showDuration(ttlMs)}; the certificate then for ${showDuration(validMs)}. It may read ${allowed.join(', ')}. On the other host:`,
      )
      note(`    pacsimile restorer enroll ${name} --collector https://THIS-HOST:PORT --token TOKEN`)
      note('Whoever was enrolled under this name before is cut off by that.')
    },
  )
}

/** What a restorer has, for another certificate of the same. @throws usage where there is none, or it was taken from it */
function termsOf(restorer: Restorer | undefined, name: string): { readonly allowed: readonly string[]; readonly validMs: number } {
  if (restorer === undefined || restorer.revoked !== undefined)
    throw new PacsimileError('usage', `Name what ${name} may read: --allow all, --allow AGENT or --allow AGENT:VOLUME`)
  const { allowance, enrolled, expires } = restorer
  return { allowed: [...allowance.words], validMs: Date.parse(expires) - Date.parse(enrolled) }
}

function enrollCommand(yargs: Argv): Argv {
  return yargs.command(
    'enroll <name>',
    'On any host: exchange a token for a key made here and a certificate; then ls, restore and the others read over the network',
    (options) =>
      withExamples(
        jsonOption(identityOption(options))
          .positional('name', NAME)
          .option('collector', {
            type: 'string',
            describe: 'URL of the collector, https://HOST:PORT',
            demandOption: true,
            requiresArg: true,
          })
          .option('token', { type: 'string', describe: 'Made there by `pacsimile restorer token`', demandOption: true, requiresArg: true }),
        'restorer enroll pacs1-host --collector https://backup:7443 --token TOKEN',
      ),
    async ({ name, collector, token, identity, json }) => {
      const { enrollRestorer } = await import('../restorer-identity.ts')
      const directory = resolve(identity)
      const done = await enrollRestorer(directory, { collector, token, name })
      if (json) {
        sayJson(enrolledFields(done, directory))
        return
      }
      say(
        `Enrolled as ${paint('bold', name)} at ${done.collector}: may read ${done.allowed.join(', ')} until ${showMoment(Date.parse(done.expires))}.`,
      )
      say('Next: pacsimile ls AGENT:VOLUME --at "1h ago"')
    },
  )
}

function enrolledFields(done: EnrolledRestorer, identityDir: string): object {
  return { ...done, identityDir }
}

function listCommand(yargs: Argv): Argv {
  return yargs.command(
    'list',
    'At the collector: all restorers, until when they are good, and when they last read something',
    (options) => withExamples(jsonOption(dataOption(options)), 'restorer list'),
    async ({ data, json }) => {
      const { openIdentity } = await import('../identity.ts')
      const { restorers } = openIdentity(resolve(data))
      const found = restorers.list().map((restorer) => ({ restorer, usedMs: restorers.lastUseMs(restorer.name) }))
      if (json) sayJson({ restorers: found.map(({ restorer, usedMs }) => restorerFields(restorer, usedMs)) })
      else if (found.length === 0) note('There is no restorer yet: pacsimile restorer token NAME --allow AGENT')
      else {
        sayTable(
          COLUMNS,
          found.map(({ restorer, usedMs }) => row(restorer, usedMs)),
        )
        for (const { name, ...restorer } of found.map((one) => one.restorer))
          if (restorer.revoked === undefined && restorerState(restorer, Date.now()) !== 'good')
            note(`A new certificate for ${name}: pacsimile restorer token ${name}`)
      }
    },
  )
}

function stateWord(restorer: Restorer): string {
  return restorer.revoked === undefined ? restorerState(restorer, Date.now()) : 'revoked'
}

function row(restorer: Restorer, usedMs: number | undefined): string[] {
  const { name, expires, password, allowance } = restorer
  const used = usedMs === undefined ? 'never' : showAge(usedMs)
  return [
    name,
    stateWord(restorer),
    `${showLocalTime(Date.parse(expires))} (${showWhen(Date.parse(expires))})`,
    password === undefined ? 'off' : 'on',
    used,
    allowance.words.join(', '),
  ]
}

function restorerFields(restorer: Restorer, usedMs: number | undefined): object {
  const { name, allowance, enrolled, expires, revoked, password } = restorer
  return {
    name,
    state: stateWord(restorer),
    allowed: allowance.words,
    enrolled,
    expires,
    revoked: revoked ?? null,
    password: password !== undefined,
    lastUse: usedMs === undefined ? null : isoTime(usedMs),
  }
}

function revokeCommand(yargs: Argv): Argv {
  return yargs.command(
    'revoke <name>',
    'At the collector: end a restorer, now, and what it is being sent',
    (options) => withExamples(jsonOption(dataOption(options)).positional('name', NAME), 'restorer revoke radiology'),
    async ({ data, name, json }) => {
      await change(data, 'revokeRestorer', { name: label(name, 'The name of the restorer') }, (identity) => identity.revokeRestorer(name))
      if (json) sayJson({ restorer: name, revoked: true })
      else say(`Revoked ${paint('bold', name)}: its certificate and its password open nothing any more.`)
    },
  )
}

function passwordCommand(yargs: Argv): Argv {
  return yargs.command(
    'password <name>',
    'At the collector: a new password for WebDAV without a certificate, shown once; the one before is good no more',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('name', NAME)
          .option('off', { type: 'boolean', describe: 'No password is good any more', default: false }),
        'restorer password radiology',
        'restorer password radiology --off',
      ),
    async ({ data, name, off, json }) => {
      const { hashPassword, newPassword } = await import('../password.ts')
      const secret = off ? undefined : newPassword()
      const password = secret === undefined ? undefined : await hashPassword(secret)
      await change(data, 'restorerPassword', { name: label(name, 'The name of the restorer'), password }, ({ restorers }) =>
        restorers.setPassword(name, password),
      )
      if (json) {
        sayJson({ restorer: name, password: secret ?? null })
        return
      }
      if (secret === undefined) say(`No password opens anything for ${paint('bold', name)} now.`)
      else {
        say(secret)
        note(`For ${name} at https://THIS-HOST:PORT/dav/, shown this once. Connections without a certificate reach WebDAV from now on.`)
      }
    },
  )
}

/** By the collector where one runs, which then knows at once and is the only one that writes. */
async function change(
  data: string,
  question: 'revokeRestorer' | 'restorerPassword',
  body: object,
  here: (identity: Identity) => void,
): Promise<void> {
  try {
    await askCollector(data, question, body)
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'collector-unreachable') throw error
    const { openIdentity } = await import('../identity.ts')
    here(openIdentity(resolve(data)))
  }
}
