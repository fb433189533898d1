import { useEffect, useLayoutEffect, useRef } from 'react'
import { safeAddress } from '../chat/markdown'
import { type Part, quotedParts } from '../chat/quotes'
import { texts } from '../texts'
import type { Source } from '../types/streaming'
import { CloseIcon } from './Icons'

/** Where there is room the panel stands beside the conversation; elsewhere it is a sheet over it. */
const ROOM = '(min-width: 84rem)'

interface SourcePanelProps {
  sources: readonly Source[]
  /** What the answer says: what it quotes is marked in the passages. */
  text: string
  /** The source that was asked for, counted from 1. */
  selected: number
  onClose(): void
}

export function SourcePanel({ sources, text, selected, onClose }: SourcePanelProps) {
  const dialog = useRef<HTMLDialogElement>(null)

  // Closing gives the focus back to the citation that opened the panel, if it happens before the element is gone.
  useLayoutEffect(() => {
    const panel = dialog.current
    if (!panel) return
    if (matchMedia(ROOM).matches) panel.show()
    else panel.showModal()
    return () => panel.close()
  }, [])

  useEffect(() => {
    const passage = dialog.current?.querySelector<HTMLElement>('[data-selected]')
    passage?.focus({ preventScroll: true })
    passage?.scrollIntoView({ block: 'nearest' })
  }, [selected])

  return (
    <dialog
      ref={dialog}
      className="source-panel"
      data-testid="source-panel"
      aria-label={texts.sources.label}
      onCancel={onClose}
      onClick={(event) => event.target === dialog.current && onClose()}
    >
      <header>
        <h2>{texts.sources.heading}</h2>
        <button type="button" className="tool" title={texts.sources.close} onClick={onClose}>
          <CloseIcon />
          <span className="unseen">{texts.sources.close}</span>
        </button>
      </header>
      <ol>
        {sources.map((source, index) => (
          <Passage
            key={source.id}
            source={source}
            parts={quotedParts(source.text, text)}
            number={index + 1}
            selected={index + 1 === selected}
          />
        ))}
      </ol>
    </dialog>
  )
}

interface PassageProps {
  source: Source
  parts: readonly Part[]
  number: number
  selected: boolean
}

function Passage({ source, parts, number, selected }: PassageProps) {
  const quotes = parts.some((part) => part.quoted)
  const address = safeAddress(source.url)
  return (
    <li
      className="passage"
      tabIndex={-1}
      data-selected={selected || undefined}
      data-quotes={quotes || undefined}
      aria-current={selected || undefined}
    >
      <h3 dir="auto">
        <span className="number">{number}</span> {source.title}
      </h3>
      <blockquote dir="auto">
        {parts.map((part) => (part.quoted ? <mark key={part.at}>{part.text}</mark> : part.text))}
      </blockquote>
      {address && (
        <a href={address.href} target="_blank" rel="noopener noreferrer">
          {texts.sources.visit(address.host)}
        </a>
      )}
    </li>
  )
}
