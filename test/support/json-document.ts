/** docs/json.md: the fields that it names, and those of an answer. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const DOCUMENT = readFileSync(join(import.meta.dirname, '../../docs/json.md'), 'utf8')

/** The fields that the document names for a command. */
export function documented(command: string): string[] {
  const [, section = ''] = DOCUMENT.split(`## \`${command}\`\n`)
  const [table = ''] = section.split('\n## ')
  return [...table.matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1] ?? '').sort()
}

/** Every field of the documents, as the document writes it: `a.b`, `list[].c`. */
export function fieldsOf(...answers: unknown[]): string[] {
  const found = new Set<string>()
  const visit = (value: unknown, name: string): void => {
    if (Array.isArray(value)) for (const item of value) visit(item, `${name}[]`)
    else if (typeof value === 'object' && value !== null)
      for (const [key, field] of Object.entries(value)) visit(field, name === '' ? key : `${name}.${key}`)
    else if (value !== undefined) found.add(name)
  }
  for (const given of answers) visit(given, '')
  return [...found].sort()
}
