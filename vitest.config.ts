import { defineConfig } from 'vitest/config'

/**
 * Three projects, one after the other. Unit tests share the cores; system tests start real processes. Those of what is fast, waits for
 * nobody, or is hit by a fault at a step that is counted, run one file at a time with nothing beside them; the others wait for timers and disks for most of their time, two at once.
 */
const PATIENT = `agent-heal agents away bit-rot bucket catching-up copies copy-care damage decay decay-everywhere full-state-disk
    hostile in-place looking mount prune remote restore-kill scrub sqlite stand-in takeover unprivileged ways-back workload`
  .split(/\s+/)
  .map((name) => `test/system/${name}.test.ts`)

export default defineConfig({
  test: {
    pool: 'forks',
    reporters: ['default', './test/support/closing-line.ts'],
    execArgv: ['--disable-warning=ExperimentalWarning'],
    // Tests that wait for a timer wait for ever on a fake one: the clock is passed in, never patched.
    restoreMocks: true,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/system/**'],
          testTimeout: 20_000,
          hookTimeout: 20_000,
          maxWorkers: 2,
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
