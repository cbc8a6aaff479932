/** An archive of small DICOM files in studies, as the journal of an agent: what a PACS, an administrator or an encrypting process does with it. */
import { createHash } from 'node:crypto'
import { dicomFile, rewriteHeader, sampleUid } from '../../collector/cli/dicom-sample.ts'
import { HybridClock } from '../../shared/clock.ts'
import { directoryVersion, JournalWriter, VOLUME } from './journal-writer.ts'

/** Bytes that are nothing to anybody without the key. */
export function encrypted(plain: Buffer): Buffer {
  const pieces: Buffer[] = []
  for (let i = 0; i * 32 < plain.length; i++) pieces.push(createHash('sha256').update(`${i}`).update(plain).digest())
  return Buffer.concat(pieces).subarray(0, plain.length)
}

export function dicomImage(study: string, image: number): Buffer {
  return dicomFile({
    patientName: `Sample^${study}`,
    patientId: study,
    studyUid: sampleUid(study),
    seriesUid: sampleUid(`${study} series`),
    sopUid: sampleUid(`${study} ${image}`),
    modality: 'CT',
    rows: 4,
    columns: 4,
    instance: image + 1,
    seed: image,
  })
}

export class DicomArchive {
  ms = Date.parse('2026-11-24T08:00:00Z')
  readonly writer: JournalWriter
  readonly images = new Map<string, Buffer>()

  constructor() {
    this.writer = new JournalWriter({ clock: new HybridClock({ now: () => this.ms }) })
  }

  /** Of a study, so many images, put where images of all studies lie beside each other. */
  store(study: string, count: number): void {
    for (let i = 0; i < count; i++) this.put(`a/${study}-${i}`, dicomImage(study, i))
  }

  put(path: string, content: Buffer): void {
    if (this.images.size === 0) this.writer.put('a', directoryVersion())
    this.images.set(path, content)
    this.writer.file(path, content)
    this.ms += 1
  }

  /** The first full scan is done. */
  complete(): void {
    this.writer.append({ kind: 'sweep', volume: VOLUME, since: 2 })
    this.ms += 1
  }

  remove(path: string): void {
    this.images.delete(path)
    this.writer.remove(path)
    this.ms += 1
  }

  /** As a file is renamed: agents tell of it as of two paths. */
  move(path: string, to: string, content = this.images.get(path) ?? Buffer.alloc(0)): void {
    this.remove(path)
    this.put(to, content)
  }

  /** As an encrypting process does: another name, another content. Agents may tell of the new name first. */
  encrypt(path: string): void {
    const content = encrypted(this.images.get(path) ?? Buffer.alloc(0))
    this.put(`${path}.locked`, content)
    this.remove(path)
  }

  rewriteHeader(path: string): void {
    this.put(path, rewriteHeader(this.images.get(path) ?? Buffer.alloc(0), { patientName: 'Merged^Patient' }))
  }

  get paths(): string[] {
    return [...this.images.keys()]
  }

  pathsOf(study: string): string[] {
    return this.paths.filter((path) => path.startsWith(`a/${study}-`))
  }
}
