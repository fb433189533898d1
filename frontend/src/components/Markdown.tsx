import { Fragment, type JSX, memo, type ReactNode, useState } from 'react'
import { type CitationToken, blockCutter, closed, decodeEntities, inner, lex, type MarkdownToken, safeAddress, tie } from '../chat/markdown'
import { texts } from '../texts'
import type { Source } from '../types/streaming'

interface Citing {
  sources: readonly Source[]
  onCite(number: number): void
}

interface MarkdownProps extends Citing {
  text: string
  /** It may end anywhere: it is being written, or was stopped. */
  unfinished?: boolean
}

/** Only blocks whose text has changed render again: while tokens arrive, that is the last one. */
export function Markdown({ text, unfinished = false, ...citing }: MarkdownProps) {
  const [cut] = useState(blockCutter)
  const blocks = cut(text)
  return blocks.map((block, index) => (
    <Block key={index} text={unfinished && index === blocks.length - 1 ? closed(block) : block} {...citing} />
  ))
}

const Block = memo(function Block({ text, ...citing }: Citing & { text: string }) {
  return <Tokens tokens={lex(text)} citing={citing} />
})

function Tokens({ tokens, citing }: { tokens: MarkdownToken[]; citing: Citing }) {
  return tie(tokens, (token) => isSourced(token, citing.sources)).map((token, index) => <Fragment key={index}>{element(token, citing)}</Fragment>)
}

// Raw HTML is shown as the characters that it is; an image is its description; both cannot do anything.
function element(token: MarkdownToken, citing: Citing): ReactNode {
  const children = () => <Tokens tokens={inner('tokens' in token ? token.tokens : undefined)} citing={citing} />
  switch (token.type) {
    case 'paragraph':
      return <p dir="auto">{children()}</p>
    case 'heading':
      return token.depth <= 2 ? <h3 dir="auto">{children()}</h3> : <h4 dir="auto">{children()}</h4>
    case 'list':
      return <List token={token} citing={citing} />
    case 'blockquote':
      return <blockquote dir="auto">{children()}</blockquote>
    case 'table':
      return <Table token={token} citing={citing} />
    case 'code':
      return (
        <pre dir="ltr">
          <code>{token.text}</code>
        </pre>
      )
    case 'hr':
      return <hr />
    case 'strong':
      return <strong>{children()}</strong>
    case 'em':
      return <em>{children()}</em>
    case 'del':
      return <del>{children()}</del>
    case 'codespan':
      return <code>{token.text}</code>
    case 'br':
      return <br />
    case 'link':
      return <Link href={token.href}>{children()}</Link>
    case 'citation':
      return <Citations token={token} {...citing} />
    case 'tied':
      return (
        <span className="tied">
          {token.tokens.map((part, index) => (
            <Fragment key={index}>{element(part, citing)}</Fragment>
          ))}
        </span>
      )
    case 'image':
      return decodeEntities(token.text)
    case 'text':
      return token.tokens ? children() : decodeEntities(token.text)
    case 'escape':
      return token.text
    case 'html':
      return token.block ? <p dir="auto">{token.raw}</p> : token.raw
    case 'def':
      return <p dir="auto">{token.raw}</p>
    case 'list_item':
    case 'checkbox':
    case 'space':
      return null
    default:
      return unknown(token)
  }
}

const unknown = (token: never): ReactNode => (token as MarkdownToken).raw

type TokenOf<Type extends MarkdownToken['type']> = Extract<MarkdownToken, { type: Type }>

function List({ token, citing }: { token: TokenOf<'list'>; citing: Citing }) {
  const items = token.items.map((item, index) => (
    <li key={index}>
      <Tokens tokens={inner(item.tokens)} citing={citing} />
    </li>
  ))
  return token.ordered ? <ol dir="auto" start={Number(token.start) || 1}>{items}</ol> : <ul dir="auto">{items}</ul>
}

function Table({ token, citing }: { token: TokenOf<'table'>; citing: Citing }) {
  const row = (cells: typeof token.header, Cell: 'th' | 'td'): JSX.Element[] =>
    cells.map((cell, index) => (
      <Cell key={index} dir="auto" className={cell.align ? `align-${cell.align}` : undefined}>
        <Tokens tokens={inner(cell.tokens)} citing={citing} />
      </Cell>
    ))
  return (
    <div className="table">
      <table>
        <thead>
          <tr>{row(token.header, 'th')}</tr>
        </thead>
        <tbody>
          {token.rows.map((cells, index) => (
            <tr key={index}>{row(cells, 'td')}</tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function Link({ href, children }: { href: string; children: ReactNode }) {
  const address = safeAddress(href)
  if (!address) return children
  return (
    <a href={address.href} target="_blank" rel="noopener noreferrer">
      {children} <span className="host">({address.host})</span>
    </a>
  )
}

const isSourced = ({ numbers }: CitationToken, sources: readonly Source[]): boolean =>
  numbers.every((number) => sources[number - 1])

function Citations({ token, sources, onCite }: Citing & { token: CitationToken }) {
  if (!isSourced(token, sources)) return token.raw
  return token.numbers.map((number) => (
    <button
      key={number}
      type="button"
      className="citation"
      aria-label={texts.sources.open(number, sources[number - 1]?.title ?? '')}
      title={sources[number - 1]?.title}
      onClick={() => onCite(number)}
    >
      {number}
    </button>
  ))
}
