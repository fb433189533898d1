// Markdown → blocks → tokens. One parser for both, so that the cut into blocks and their rendering cannot disagree.
import { Lexer, Marked, type MarkedToken, type Token, type Tokens, type TokensList } from 'marked'
import remend from 'remend'

export interface CitationToken {
  type: 'citation'
  raw: string
  numbers: number[]
}

/** What must not be parted by a line's end: a word, the citations after it and the sign after them. */
export interface TiedToken {
  type: 'tied'
  raw: string
  tokens: MarkdownToken[]
}

export type MarkdownToken = MarkedToken | CitationToken | TiedToken

const CITATION = /^\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\](?![(:])/
const HALF_CITATION = /\[[\d,\s]*$/

const parser = new Marked({
  gfm: true,
  extensions: [
    {
      name: 'citation',
      level: 'inline',
      start: (text: string) => text.match(/\[\d/)?.index,
      tokenizer(text: string) {
        const match = CITATION.exec(text)
        return match?.[1] ? { type: 'citation', raw: match[0], numbers: match[1].split(',').map(Number) } : undefined
      },
    },
  ],
  tokenizer: {
    // A single tilde means "about" or "to" here: `1~2 tablets … 3~4 days` must not be struck through.
    del(text: string) {
      return text.startsWith('~~') ? false : undefined
    },
  },
})

// The lexer counts a tab, and the two characters of a line's end, otherwise than it cuts them.
const even = (text: string): string => text.replaceAll('\r\n', '\n').replaceAll('\t', '    ')

/** Cuts a text into its top-level blocks, each with the blank lines after it. Joined, they are the text. */
export function splitBlocks(written: string): string[] {
  const text = even(written)
  // The lexer makes blanks at the end into others; no block depends on them.
  const body = text.trimEnd()
  const blocks: string[] = []
  for (const { type, raw } of new Lexer().blockTokens(body, [])) {
    if (type === 'space' && blocks.length > 0) blocks.push(`${blocks.pop()}${raw}`)
    else blocks.push(raw)
  }
  if (blocks.join('') !== body) return [text]
  return [...blocks.slice(0, -1), `${blocks.at(-1) ?? ''}${text.slice(body.length)}`]
}

const BLANK_LINE_AT_END = /\n *\n\s*$/

/** The blocks of a text that has grown: what stands after the last blank line between blocks is cut anew. */
export function extendBlocks(previous: readonly string[], written: string): string[] {
  const text = even(written)
  const settled = previous.slice(0, previous.slice(0, -1).findLastIndex((block) => BLANK_LINE_AT_END.test(block)) + 1)
  const prefix = settled.join('')
  return text.startsWith(prefix) ? [...settled, ...splitBlocks(text.slice(prefix.length))] : splitBlocks(text)
}

/** Cuts a text that grows, from where it was cut last. */
export function blockCutter(): (text: string) => string[] {
  let blocks: string[] = []
  return (text) => (blocks = extendBlocks(blocks, text))
}

/** Closes what is half written, so that emphasis does not flicker while tokens arrive. */
export function closed(block: string): string {
  return remend(block.replace(HALF_CITATION, ''), {
    images: false,
    htmlTags: false,
    katex: false,
    comparisonOperators: false,
    singleTilde: false,
    linkMode: 'text-only',
  })
}

/** Alone, a block has no link definitions, so that `[1]` is never anything but a citation. */
export const lex = (block: string): MarkdownToken[] => parser.lexer(block) as TokensList as MarkdownToken[]

// A longer word may be broken anywhere, so that it does not stick out.
const LAST_WORD = /\S{1,24}\s*$/
const CLOSING_SIGNS = /^[.,;:!?)\]»”]*/

const plain = (text: string): Tokens.Text => ({ type: 'text', raw: text, text, escaped: false })
const isPlain = (token: MarkdownToken | undefined): token is Tokens.Text => token?.type === 'text' && !token.tokens

/** Ties citations to the word before them and to the sign after them, so that no line begins with one. */
export function tie(tokens: readonly MarkdownToken[], cites: (token: CitationToken) => boolean): MarkdownToken[] {
  const tied: MarkdownToken[] = []
  for (const token of tokens) {
    const last = tied.at(-1)
    if (token.type === 'citation' && cites(token)) {
      if (last?.type === 'tied') last.tokens.push(token)
      else tied.push({ type: 'tied', raw: '', tokens: [...cutLastWord(tied), token] })
    } else if (last?.type === 'tied' && isPlain(token)) {
      const held = token.text.trim() === '' ? token.text.length : (CLOSING_SIGNS.exec(token.text)?.[0].length ?? 0)
      last.tokens.push(plain(token.text.slice(0, held)))
      tied.push(...(held < token.text.length ? [plain(token.text.slice(held))] : []))
    } else tied.push(token)
  }
  return tied
}

function cutLastWord(tokens: MarkdownToken[]): MarkdownToken[] {
  const last = tokens.at(-1)
  const at = isPlain(last) ? last.text.search(LAST_WORD) : -1
  if (!isPlain(last) || at < 0) return []
  tokens.splice(-1, 1, plain(last.text.slice(0, at)))
  return [plain(last.text.slice(at))]
}

export const inner = (tokens: Token[] | undefined): MarkdownToken[] => (tokens ?? []) as MarkdownToken[]

/** The address of a link that may be followed, else null. */
export function safeAddress(address: string): URL | null {
  const url = URL.canParse(address) ? new URL(address) : null
  return url?.protocol === 'https:' || url?.protocol === 'http:' ? url : null
}

const ENTITIES: Record<string, string> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
  nbsp: '\u00a0',
  deg: '°',
  micro: 'µ',
  plusmn: '±',
  times: '×',
  le: '≤',
  ge: '≥',
  ndash: '–',
  mdash: '—',
  hellip: '…',
  frac12: '½',
}

/** Character references, which the lexer leaves for an HTML parser to read. */
export function decodeEntities(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|([a-z][a-z\d]*));/gi, (reference, decimal, hex, name) => {
    if (name) return ENTITIES[name as string] ?? reference
    const code = decimal ? Number.parseInt(decimal, 10) : Number.parseInt(hex, 16)
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : reference
  })
}
