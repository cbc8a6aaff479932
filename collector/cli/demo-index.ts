/**
 * The demo's index: which images the archive holds, in a real SQLite database, as a PACS keeps one beside its files.
 *
 * Each change is committed with SQLite's own rollback journal, which comes and goes as a file of its own. It prevents a
 * demo that only ever shows files which are written once and closed.
 */
import { DatabaseSync } from 'node:sqlite'

export class DemoIndex {
  readonly #database: DatabaseSync

  constructor(file: string) {
    this.#database = new DatabaseSync(file)
    this.#database.exec('CREATE TABLE IF NOT EXISTS image (path TEXT PRIMARY KEY, study INTEGER NOT NULL, patient TEXT NOT NULL)')
  }

  add(study: number, patient: string, paths: readonly string[]): void {
    const insert = this.#database.prepare('INSERT INTO image (path, study, patient) VALUES (?, ?, ?)')
    this.#database.exec('BEGIN')
    for (const path of paths) insert.run(path, study, patient)
    this.#database.exec('COMMIT')
  }

  renamePatient(study: number, patient: string): void {
    this.#database.prepare('UPDATE image SET patient = ? WHERE study = ?').run(patient, study)
  }

  removeStudy(study: number): void {
    this.#database.prepare('DELETE FROM image WHERE study = ?').run(study)
  }

  close(): void {
    this.#database.close()
  }
}

/** What a PACS would find when it opens this index: SQLite's verdict on it, and the images that it lists. */
export function readIndex(file: string): { verdict: string; paths: string[] } {
  const database = new DatabaseSync(file, { readOnly: true })
  try {
    const verdict = database.prepare('PRAGMA integrity_check').get()
    const rows = database.prepare('SELECT path FROM image ORDER BY path').all()
    return { verdict: String(verdict?.['integrity_check']), paths: rows.map((row) => String(row['path'])) }
  } finally {
    database.close()
  }
}
