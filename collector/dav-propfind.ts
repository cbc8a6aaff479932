/**
 * The body of a PROPFIND (RFC 4918, 9.1): which properties are asked for.
 *
 * A strict small part of XML: elements, attributes, namespaces, comments. Invariant: nothing is ever expanded, fetched or defined by a
 * body: no document type, no entity but the five of XML, no processing instruction, bounded in depth and number. It prevents what XML
 * parsers are attacked with.
 */
import { PacsimileError } from '../shared/errors.ts'

export interface DavName {
  readonly namespace: string
  readonly name: string
}

/** `all` that there are, only their `names`, or these. */
export type Propfind = 'all' | 'names' | readonly DavName[]

export const DAV_NAMESPACE = 'DAV:'
const DEPTH_MAX = 8
const PROPERTIES_MAX = 200
const ATTRIBUTES_MAX = 50
const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

const BETWEEN = /<!--(?:(?!--)[\s\S])*-->|[^<]+/y
const DECLARATION = /^\uFEFF?(?:<\?xml\s[^<>?]*\?>)?/
const CLOSING = /<\/([\w.:-]+)\s*>/y
const OPENING = /<([\w.:-]+)/y
const ATTRIBUTE = /\s+([\w.:-]+)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')/y
const OPENING_END = /\s*(\/?)>/y
const LOCAL = /^[A-Za-z_][\w.-]*$/

interface Element extends DavName {
  readonly qualified: string
  /** Prefix to namespace, also of the elements around it. */
  readonly scope: ReadonlyMap<string, string>
}

/** An empty body asks for all. @throws protocol */
export function parsePropfind(text: string): Propfind {
  if (text.trim() === '') return 'all'
  const found: DavName[] = []
  let kind: 'all' | 'names' | 'some' | undefined
  const open: Element[] = []
  let isRootSeen = false
  const enter = (element: Element): void => {
    const [root, kindOf] = open
    if (root === undefined) {
      if (isRootSeen || !isDav(element, 'propfind')) throw malformed('it is no propfind')
      isRootSeen = true
    } else if (kindOf === undefined) {
      if (isDav(element, 'allprop')) kind ??= 'all'
      else if (isDav(element, 'propname')) kind ??= 'names'
      else if (isDav(element, 'prop')) kind ??= 'some'
    } else if (open.length === 2 && isDav(kindOf, 'prop')) {
      if (found.length >= PROPERTIES_MAX) throw malformed('too many properties')
      found.push({ namespace: element.namespace, name: element.name })
    }
  }
  for (const token of tokens(text)) {
    if (token.kind === 'open') {
      if (open.length >= DEPTH_MAX) throw malformed('too deep')
      const element = elementOf(token, open.at(-1)?.scope ?? NO_SCOPE)
      enter(element)
      if (!token.isEmpty) open.push(element)
    } else if (open.pop()?.qualified !== token.name) {
      throw malformed('tags do not match')
    }
  }
  if (!isRootSeen || open.length > 0 || kind === undefined) throw malformed('it ends early')
  return kind === 'some' ? found : kind
}

type Token =
  | { readonly kind: 'open'; readonly name: string; readonly attributes: readonly (readonly [string, string])[]; readonly isEmpty: boolean }
  | { readonly kind: 'close'; readonly name: string }

const NO_SCOPE: ReadonlyMap<string, string> = new Map([['xml', 'http://www.w3.org/XML/1998/namespace']])

function* tokens(text: string): Generator<Token> {
  let at = DECLARATION.exec(text)?.[0].length ?? 0
  const take = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = at
    const match = pattern.exec(text)
    if (match === null) return undefined
    at = pattern.lastIndex
    return match
  }
  while (at < text.length) {
    if (take(BETWEEN) !== undefined) continue
    const closing = take(CLOSING)?.[1]
    if (closing !== undefined) {
      yield { kind: 'close', name: closing }
      continue
    }
    const name = take(OPENING)?.[1]
    if (name === undefined) throw malformed('only elements and comments are taken')
    const attributes: [string, string][] = []
    for (let match = take(ATTRIBUTE); match !== undefined; match = take(ATTRIBUTE)) {
      if (attributes.length >= ATTRIBUTES_MAX) throw malformed('too many attributes')
      attributes.push([match[1] ?? '', plainText(match[2] ?? match[3] ?? '')])
    }
    const end = take(OPENING_END)
    if (end === undefined) throw malformed('a tag does not end')
    yield { kind: 'open', name, attributes, isEmpty: end[1] === '/' }
  }
}

function elementOf({ name, attributes }: Extract<Token, { kind: 'open' }>, around: ReadonlyMap<string, string>): Element {
  const declared = attributes.flatMap(([key, value]): [string, string][] => {
    if (key === 'xmlns') return [['', value]]
    return key.startsWith('xmlns:') ? [[key.slice('xmlns:'.length), value]] : []
  })
  const scope = declared.length === 0 ? around : new Map([...around, ...declared])
  const [local = '', prefix = '', ...rest] = name.split(':').reverse()
  const namespace = scope.get(prefix) ?? (prefix === '' ? '' : undefined)
  if (namespace === undefined || rest.length > 0 || !LOCAL.test(local)) throw malformed('a name that cannot be understood')
  return { qualified: name, namespace, name: local, scope }
}

function plainText(raw: string): string {
  return raw.replaceAll(/&([^;]{0,10});?/g, (_, entity: string) => {
    const plain = ENTITIES[entity]
    if (plain === undefined) throw malformed('an entity that is none of XML')
    return plain
  })
}

function isDav({ namespace, name }: DavName, wanted: string): boolean {
  return namespace === DAV_NAMESPACE && name === wanted
}

function malformed(why: string): PacsimileError {
  return new PacsimileError('protocol', `The body of this PROPFIND is not understood: ${why}`)
}
