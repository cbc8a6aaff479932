import { defineConfig } from 'vitest/config'

/**
 * Two projects, one after the other. Unit tests share the cores; system tests start real processes and
 * measure them, so they run one file at a time with nothing beside them.
 */
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
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
