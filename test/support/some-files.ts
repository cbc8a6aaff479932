/** Fifty files in five directories, none like the other. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export function someFiles(directory: string): void {
  for (let i = 0; i < 50; i++) {
    mkdirSync(join(directory, `d${i % 5}`), { recursive: true })
    writeFileSync(join(directory, `d${i % 5}`, `f${i}`), `content ${i} `.repeat(i * 50))
  }
}
