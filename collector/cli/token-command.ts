/**
 * `pacsimile token create`: a token that enrols one agent, once.
 *
 * The token alone goes to stdout, what it is good for to stderr. It prevents scripts from having to cut it out of a sentence.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { showDuration } from './amounts.ts'
import { parseDuration } from './duration.ts'
import { sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { note, say } from './output.ts'

export function tokenCommand(yargs: Argv): Argv {
  return yargs.command('token', 'Tokens with which agents enrol', (group) =>
    createCommand(group).demandCommand(1, 'Name what to do: create'),
  )
}

function createCommand(yargs: Argv): Argv {
  return yargs.command(
    'create',
    'Make a token that enrols one agent, once',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .option('ttl', { type: 'string', describe: 'How long it is valid', default: '1h', requiresArg: true })
          .option('agent', {
            type: 'string',
            describe: 'Only for the agent of this name, also where it is enrolled already (a new host takes its place)',
            requiresArg: true,
          }),
        'token create --ttl 15m',
        'token create --agent pacs1    # the host was reinstalled, and its history is to go on',
      ),
    async ({ data, ttl, agent, json }) => {
      const { createToken } = await import('../identity.ts')
      const ttlMs = parseDuration(ttl, '--ttl')
      const token = createToken(resolve(data), agent === undefined ? { ttlMs } : { ttlMs, agent })
      if (json) {
        sayJson({ token })
        return
      }
      say(token)
      note(`Good once, for ${showDuration(ttlMs)}. On the host to protect:`)
      note('    pacsimile agent enroll --collector wss://THIS-HOST:PORT --token TOKEN --volume NAME=PATH')
    },
  )
}
