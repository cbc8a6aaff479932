/**
 * A recovery key as people keep it: on paper, in a safe, typed back on the worst day.
 *
 * 32 bytes and the first 5 bytes of their SHA-256, as Crockford base32: 15 groups of 4, the last two of them the checksum.
 * Case, spaces and dashes do not matter, and O, I, L are read as 0, 1, 1. Invariant: a key that was mistyped is called
 * mistyped. It prevents the reader from taking a slip of the finger for the wrong sheet of paper, or for a lost repository.
 */
import { hash } from 'node:crypto'
import { PacsimileError } from '../../shared/errors.ts'

const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const KEY_BYTES = 32
/** 256 bits and four zero bits. */
const KEY_CHARACTERS = 52
const CHECKSUM_BYTES = 5
const CHECKSUM_CHARACTERS = 8
const CHARACTERS = KEY_CHARACTERS + CHECKSUM_CHARACTERS

export function formatRecoveryKey(key: Uint8Array): string {
  const text = encode(key) + encode(checksumOf(key))
  return (text.match(/.{4}/g) ?? []).join('-')
}

/** @throws usage for a key that was mistyped */
export function parseRecoveryKey(text: string): Buffer {
  const typed = text.toUpperCase().replaceAll(/[\s-]/g, '').replaceAll('O', '0').replaceAll(/[IL]/g, '1')
  const unknown = /[^0-9A-HJKMNP-TV-Z]/u.exec(typed)?.[0]
  if (unknown !== undefined) throw mistyped(`${JSON.stringify(unknown)} does not occur in recovery keys`)
  if (typed.length !== CHARACTERS) throw mistyped(`it has ${typed.length} characters instead of ${CHARACTERS}`)
  const key = decode(typed.slice(0, KEY_CHARACTERS), KEY_BYTES)
  const checksum = decode(typed.slice(KEY_CHARACTERS), CHECKSUM_BYTES)
  if (key === undefined || checksum === undefined || !checksum.equals(checksumOf(key))) throw mistyped('its checksum does not match')
  return key
}

function mistyped(why: string): PacsimileError {
  return new PacsimileError('usage', `The recovery key is mistyped: ${why}`)
}

function checksumOf(key: Uint8Array): Buffer {
  return hash('sha256', key, 'buffer').subarray(0, CHECKSUM_BYTES)
}

/** Five bits a character from the first byte's highest bit on, zero bits at the end. */
function encode(bytes: Uint8Array): string {
  const length = Math.ceil((bytes.length * 8) / 5)
  let rest = BigInt(`0x${Buffer.from(bytes).toString('hex')}`) << BigInt(length * 5 - bytes.length * 8)
  let text = ''
  for (let i = 0; i < length; i++) {
    text = ALPHABET.charAt(Number(rest & 31n)) + text
    rest >>= 5n
  }
  return text
}

/** Undefined where the bits at the end are not zero. */
function decode(text: string, length: number): Buffer | undefined {
  const padding = BigInt(text.length * 5 - length * 8)
  let value = 0n
  for (const character of text) value = (value << 5n) | BigInt(ALPHABET.indexOf(character))
  if ((value & ((1n << padding) - 1n)) !== 0n) return undefined
  return Buffer.from((value >> padding).toString(16).padStart(length * 2, '0'), 'hex')
}
