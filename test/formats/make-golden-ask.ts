/**
 * Makes the golden messages that ask an agent for content, and answer, once: `node test/formats/make-golden-ask.ts test/formats/v1-ask`.
 * What holds for `v1` and make-golden.ts holds for them: read for ever, never changed.
 *
 *     messages.json             each message's bytes and value
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { digestOf } from '../../shared/digest.ts'
import { label, relativePath } from '../../shared/path.ts'
import { encodeMessage, type Message } from '../../shared/wire.ts'
import { plain } from './plain.ts'

const content = Buffer.from('old')
const volume = label('images', 'Volume')

const messages: Message[] = [
  {
    kind: 'ask',
    id: 7,
    digest: digestOf(content),
    length: content.length,
    spots: [
      { volume, path: relativePath('CT/b\xff\x01.dcm'), offset: 0 },
      { volume, path: relativePath('a'), offset: 2 ** 40 },
    ],
  },
  { kind: 'answer', id: 7, length: content.length, filtered: false, compressed: false, bytes: content },
  { kind: 'answer', id: 2 ** 32 - 1, length: 9, filtered: true, compressed: true, bytes: Buffer.from([1, 2, 3]) },
  { kind: 'answer', id: 8, length: 0, filtered: false, compressed: false, bytes: Buffer.alloc(0) },
]

const [, , directory = ''] = process.argv
mkdirSync(directory)
const items = messages.map((message) => ({ hex: encodeMessage(message).toString('hex'), value: plain(message) }))
writeFileSync(join(directory, 'messages.json'), `${JSON.stringify(items, null, 1)}\n`, { flag: 'wx' })
