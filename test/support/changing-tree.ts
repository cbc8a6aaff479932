/** A random tree, and random changes of it: every kind of change that a scan must find, by the names that occur. */
import {
  chmodSync,
  type Dirent,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Random } from './workload.ts'

export function growTree(root: string, random: Random, directories: number, filesEach: number): void {
  const places = [root]
  for (let i = 0; i < directories; i++) {
    const place = join(pick(places, random), `d${i}${['', '-', '.x', ' y'][i % 4]}`)
    mkdirSync(place)
    places.push(place)
  }
  for (const place of places) for (let i = 0; i < filesEach; i++) writeFileSync(join(place, `f${i}`), 'x'.repeat(random.below(50)))
}

export function changeTree(root: string, random: Random, changes: number): void {
  for (let i = 0; i < changes; i++) {
    const places = readdirSync(root, { recursive: true, withFileTypes: true })
    const pathsOf = (kept: (entry: Dirent) => boolean): string[] =>
      places.filter((entry) => kept(entry)).map(({ parentPath, name }) => join(parentPath, name))
    const directories = [root, ...pathsOf((entry) => entry.isDirectory())]
    const files = pathsOf((entry) => entry.isFile())
    if (files.length === 0) return
    const directory = pick(directories, random)
    const file = pick(files, random)
    const target = join(directory, `n${random.below(2 ** 30)}`)
    switch (random.below(13)) {
      case 0:
        writeFileSync(file, `changed ${i}`)
        break
      case 1:
        writeFileSync(target, 'new')
        break
      case 2:
        rmSync(file)
        break
      case 3:
        if (directory !== root) rmSync(directory, { recursive: true })
        break
      case 4:
        renameSync(file, target)
        break
      case 5:
        // A directory moves with all that is in it, but not into itself.
        if (directory !== root) renameSync(directory, join(root, `m${random.below(2 ** 30)}`))
        break
      case 6:
        chmodSync(file, 0o600)
        break
      case 7:
        mkdirSync(join(target, 'a', 'b'), { recursive: true })
        writeFileSync(join(target, 'a', 'b', 'c'), 'deep')
        break
      case 8:
        linkSync(file, target)
        break
      case 9:
        symlinkSync('/nowhere', target)
        break
      case 10: {
        // The same length and the same mtime: only the ctime tells.
        const { atime, mtime, size } = lstatSync(file)
        writeFileSync(file, 'y'.repeat(size))
        utimesSync(file, atime, mtime)
        break
      }
      case 11:
        renameSync(file, pick(files, random))
        break
      case 12:
        if (directory !== root) {
          rmSync(directory, { recursive: true })
          writeFileSync(directory, 'a file now')
        }
    }
  }
}

function pick<T>(from: readonly T[], random: Random): T {
  const picked = from[random.below(from.length)]
  if (picked === undefined) throw new RangeError('nothing to pick from')
  return picked
}
