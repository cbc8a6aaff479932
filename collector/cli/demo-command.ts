/** `pacsimile demo`: the main job on real input, told as a story. */
import type { Argv } from 'yargs'
import { jsonOption } from './options.ts'

export function demoCommand(yargs: Argv): Argv {
  return yargs.command(
    'demo',
    'See the main job: protect, lose, restore, compare; under a minute, in a temporary directory',
    (options) =>
      jsonOption(options)
        .option('stay', { type: 'boolean', describe: 'Keep everything running to play with', default: false })
        .option('dir', { type: 'string', describe: 'Where to work instead of a temporary directory', requiresArg: true }),
    async ({ stay, json, dir }) => {
      const { runDemo } = await import('./demo.ts')
      process.exitCode = await runDemo({ stay, json, directory: dir })
    },
  )
}
