import { join } from 'node:path'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

// Scripts that tests run, a thousand times, are TypeScript: the types of each of their modules are stripped once, not at every start.
process.env['NODE_COMPILE_CACHE'] ??= join(import.meta.dirname, 'node_modules/.cache/node-compile')

/**
 * Three projects, one after the other. Unit tests share the cores, three at once on two, for each waits half of its time. System tests
 * start real processes. Those of what is fast, waits for nobody, or is hit by a fault at a step that is counted, run one file at a time
 * with nothing beside them; the others wait for timers and disks for most of their time, two at once.
 */
const PATIENT = `bucket copy-care scrub takeover sqlite prune copies in-place stand-in ways-back mount agent-heal full-state-disk workload
    absence agents away bit-rot catching-up crash damage decay decay-everywhere full-disk hostile looking remote restore-kill unprivileged`
  .split(/\s+/)
  .map((name) => `test/system/${name}.test.ts`)

/** What takes longest begins first: so the workers of a project end at about the same time. The first of these waits for half a minute. */
const FIRST = ['test/agent/forecast.test.ts', ...PATIENT]

class Sequencer extends BaseSequencer {
  /** Files that are not listed come after those that are, as they would. */
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => {
      const at = FIRST.findIndex((name) => moduleId.endsWith(name))
      return at === -1 ? FIRST.length : at
    }
    const projects = Map.groupBy(await super.sort(files), ({ project }) => project.name)
    return [...projects.values()].flatMap((of) => of.toSorted((one, other) => place(one) - place(other)))
  }
}

export default defineConfig({
  test: {
    pool: 'forks',
    reporters: ['default', './test/support/closing-line.ts'],
    execArgv: ['--disable-warning=ExperimentalWarning'],
    // Tests that wait for a timer wait for ever on a fake one: the clock is passed in, never patched.
    restoreMocks: true,
    sequence: { sequencer: Sequencer },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/system/**'],
          testTimeout: 20_000,
          hookTimeout: 20_000,
          maxWorkers: 3,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'system',
          include: ['test/system/**/*.test.ts'],
          exclude: PATIENT,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'system-patient',
          include: PATIENT,
          testTimeout: 240_000,
          hookTimeout: 120_000,
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
})
