import { setTimeout } from 'node:timers/promises'
import { expect, it, onTestFinished, vi } from 'vitest'
import { State } from '../../agent/state.ts'
import { LoneAgent } from '../support/lone-agent.ts'

it('a volume that is just beginning does not keep an agent from stopping', async () => {
  const asked = Promise.withResolvers<void>()
  const rules = vi.spyOn(State.prototype, 'rulesOf').mockImplementation(async () => {
    asked.resolve()
    await setTimeout(300)
    return undefined
  })
  onTestFinished(() => rules.mockRestore())
  const agent = new LoneAgent()
  agent.start()
  await asked.promise
  await agent.stop()
  expect(rules).toHaveBeenCalledTimes(1)
})
