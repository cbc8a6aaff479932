/**
 * The demo's archive: studies stored as a PACS stores them, the work of a day, and what ransomware does to all of it.
 *
 * Files are made by the deterministic generator, and where python3-pydicom is installed also taken from its collection of
 * real ones. It prevents a demo that works only on the files which it made for itself.
 */
import { randomBytes } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DemoIndex } from './demo-index.ts'
import { dicomFile, rewriteHeader, sampleUid } from './dicom-sample.ts'

export const STUDIES = 12
const SERIES = 2
const IMAGES = 18
const PYDICOM_FILES = '/usr/lib/python3/dist-packages/pydicom/data/test_files'
const PYDICOM_MAX = 40
/** The ransomware deletes each so manieth image and locks the others. */
const DELETED_EACH = 10
export const INDEX_FILE = 'index.db'

export interface Image {
  /** Below the archive's root. */
  readonly path: string
  readonly bytes: Buffer
}

/** One study's images, the same at every call. */
export function* study(number: number): Generator<Image> {
  const studyUid = sampleUid(`study ${number}`)
  const isCt = number % 3 === 0
  for (let series = 0; series < SERIES; series++) {
    const seriesUid = sampleUid(`series ${number} ${series}`)
    for (let instance = 1; instance <= IMAGES; instance++) {
      const bytes = dicomFile({
        patientName: patientOf(number),
        patientId: `P${1000 + number}`,
        studyUid,
        seriesUid,
        sopUid: sampleUid(`image ${number} ${series} ${instance}`),
        modality: isCt ? 'CT' : 'MR',
        rows: isCt ? 512 : 256,
        columns: isCt ? 512 : 256,
        instance,
        seed: number * 1000 + series * 100 + instance,
      })
      yield { path: join(studyDirectory(number), `series-${series + 1}`, `${String(instance).padStart(4, '0')}.dcm`), bytes }
    }
  }
}

function studyDirectory(number: number): string {
  return join('2026', '11', `study-${String(number).padStart(2, '0')}`)
}

function patientOf(number: number): string {
  return `DEMO^PATIENT^${number}`
}

export class DemoArchive {
  readonly root: string
  readonly #index: DemoIndex

  constructor(root: string) {
    this.root = root
    mkdirSync(join(root, 'incoming'), { recursive: true })
    mkdirSync(join(root, '2026', '11'), { recursive: true })
    symlinkSync(join('2026', '11'), join(root, 'current'))
    this.#index = new DemoIndex(join(root, INDEX_FILE))
  }

  /** Stores one image as Orthanc does: at its final path, flushed, closed. @returns when it was closed, by performance.now() */
  async store(image: Image): Promise<number> {
    const file = join(this.root, image.path)
    mkdirSync(dirname(file), { recursive: true })
    const opened = await open(file, 'w')
    await opened.writeFile(image.bytes)
    await opened.sync()
    await opened.close()
    return performance.now()
  }

  /** Files in the index what of a study is stored. */
  file(number: number): void {
    this.#index.add(number, patientOf(number), this.#imagesOf(number))
  }

  /** Real files of many kinds, where the package python3-pydicom is installed. @returns how many */
  storeForeignFiles(): number {
    if (!existsSync(PYDICOM_FILES)) return 0
    const names = readdirSync(PYDICOM_FILES)
      .filter((name) => name.endsWith('.dcm'))
      .slice(0, PYDICOM_MAX)
    mkdirSync(join(this.root, 'foreign'), { recursive: true })
    for (const name of names) copyFileSync(join(PYDICOM_FILES, name), join(this.root, 'foreign', name))
    return names.length
  }

  /** A patient merge: the name in the header of every image of a study is rewritten in place. */
  mergePatient(number: number, patientName: string): { images: number; bytes: number } {
    let bytes = 0
    const images = this.#imagesOf(number)
    for (const path of images) {
      const file = join(this.root, path)
      const rewritten = rewriteHeader(readFileSync(file), { patientName })
      writeFileSync(file, rewritten)
      bytes += rewritten.length
    }
    this.#index.renamePatient(number, patientName)
    return { images: images.length, bytes }
  }

  deleteStudy(number: number): void {
    rmSync(join(this.root, studyDirectory(number)), { recursive: true })
    this.#index.removeStudy(number)
  }

  /**
   * What ransomware does: noise over the images and another name, some deleted, a note, and the index deleted. The noise is
   * random, because one that compresses would flatter the size of the history.
   */
  encryptEverything(): { readonly locked: number; readonly deleted: number } {
    const images = Array.from({ length: STUDIES }, (_, i) => this.#imagesOf(i + 1)).flat()
    const deleted = images.filter((_, index) => index % DELETED_EACH === 0)
    const locked = images.filter((_, index) => index % DELETED_EACH !== 0)
    for (const path of deleted) rmSync(join(this.root, path))
    for (const path of locked) {
      const file = join(this.root, path)
      writeFileSync(file, randomBytes(readFileSync(file).length))
      renameSync(file, `${file}.locked`)
    }
    writeFileSync(join(this.root, 'READ_ME_TO_PAY.txt'), 'Your images are encrypted.\n')
    this.#index.close()
    rmSync(join(this.root, INDEX_FILE))
    return { locked: locked.length, deleted: deleted.length }
  }

  #imagesOf(number: number): string[] {
    const directory = studyDirectory(number)
    if (!existsSync(join(this.root, directory))) return []
    return readdirSync(join(this.root, directory)).flatMap((series) =>
      readdirSync(join(this.root, directory, series)).map((name) => join(directory, series, name)),
    )
  }
}
