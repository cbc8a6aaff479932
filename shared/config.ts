/**
 * Reading of configuration files: TOML, checked against a schema, unknown keys refused.
 *
 * A wrong file stops the program with the file, the key and the reason; it never runs on a guess. The only door to the TOML library.
 */
import { readFileSync } from 'node:fs'
import { parse, stringify } from 'smol-toml'
import type { z } from 'zod'
import { asPacsimileError, PacsimileError, reasonOf } from './errors.ts'

/** @throws config-invalid, io */
export function readConfig<Schema extends z.ZodType>(file: string, schema: Schema): z.output<Schema> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw asPacsimileError(error, `Reading the configuration ${file}`)
  }
  let value: unknown
  try {
    value = parse(text)
  } catch (error) {
    throw new PacsimileError('config-invalid', `${file} is not valid TOML: ${reasonOf(error)}`, { cause: error })
  }
  const checked = schema.safeParse(value)
  if (!checked.success) {
    const reasons = checked.error.issues.map((issue) => `${issue.path.join('.') || 'top level'}: ${issue.message}`)
    throw new PacsimileError('config-invalid', `${file}: ${reasons.join('; ')}`)
  }
  return checked.data
}

export function formatConfig(value: Readonly<Record<string, unknown>>): string {
  return `${stringify(value)}\n`
}
