/**
 * `pacsimile demo`: the main job on real input, told as a story (demo.ts).
 *
 * The demo itself is loaded only when it runs: no other command pays for it.
 */
import type { Argv } from 'yargs'
import { jsonOption, withExamples } from './options.ts'

export function demoCommand(yargs: Argv): Argv {
  return yargs.command(
    'demo',
    'See the main job: protect, lose, restore, compare; under a minute, in a temporary directory',
    (options) =>
      withExamples(
        jsonOption(options)
          .option('stay', { type: 'boolean', describe: 'Keep everything running to play with', default: false })
          .option('dir', {
            type: 'string',
            describe: 'Empty or new directory to work in, instead of a temporary one; removed at the end, too',
            requiresArg: true,
          }),
        'demo',
        'demo --stay',
      ),
    async ({ stay, json, dir }) => {
      const { runDemo } = await import('./demo.ts')
      process.exitCode = await runDemo({ stay, json, directory: dir })
    },
  )
}
