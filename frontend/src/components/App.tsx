import { useCallback, useEffect, useRef, useState } from 'react'
import { useMedia } from '../hooks/useMedia'
import { useRoute } from '../hooks/useRoute'
import { useSessions } from '../hooks/useSessions'
import { useShortcuts } from '../hooks/useShortcuts'
import { texts } from '../texts'
import { ChatInterface } from './ChatInterface'
import { CloseIcon, KeyboardIcon, MenuIcon, Pulse } from './Icons'
import { SessionList } from './SessionList'
import { Shortcuts } from './Shortcuts'

/** Where the list lies over the chat; elsewhere there is nothing to close. */
const OVERLAID = '(max-width: 54rem)'

/** The frame around a chat: the list of conversations, the address, and what is open over them. */
export function App() {
  const route = useRoute()
  const sessions = useSessions()
  const searchField = useRef<HTMLInputElement>(null)
  const [listOpen, setListOpen] = useState(false)
  const [keysOpen, setKeysOpen] = useState(false)
  const title = sessions.titles[route.sessionId] ?? ''

  // The focus goes into the list when it comes to lie over the chat, and when it has closed back to the button for it,
  // unless something else has it by then.
  const overlaid = useMedia(OVERLAID) && listOpen
  const side = useRef<HTMLElement>(null)
  const hide = useRef<HTMLButtonElement>(null)
  const show = useRef<HTMLButtonElement>(null)
  const wasOverlaid = useRef(overlaid)
  useEffect(() => {
    const inside = side.current?.contains(document.activeElement)
    if (overlaid && !inside) hide.current?.focus()
    if (!overlaid && wasOverlaid.current && (inside || document.activeElement === document.body)) show.current?.focus()
    wasOverlaid.current = overlaid
  }, [overlaid])

  const openFresh = (): void => {
    setListOpen(false)
    route.openFresh()
  }
  const opened = useRef(route.sessionId)
  useEffect(() => {
    opened.current = route.sessionId
  })
  const { settle } = route
  const { touch } = sessions
  // What was asked before one went elsewhere is in the list all the same.
  const settled = useCallback(
    (sessionId: string) => {
      settle(sessionId)
      if (sessionId !== opened.current) touch()
    },
    [settle, touch],
  )
  const search = (): void => {
    setListOpen(true)
    requestAnimationFrame(() => searchField.current?.focus())
  }
  useShortcuts({ 'Alt+n': openFresh, 'Alt+k': search, '?': () => setKeysOpen(true) })

  return (
    <div className="app" data-list={listOpen || undefined}>
      <aside ref={side} className="side">
        <div className="brand">
          <Pulse className="brand-mark" /> {texts.product}
          <button ref={hide} type="button" className="tool narrow" onClick={() => setListOpen(false)}>
            <CloseIcon />
            <span className="unseen">{texts.sessions.close}</span>
          </button>
        </div>
        <SessionList
          sessions={sessions}
          current={route.sessionId}
          searchField={searchField}
          onOpen={(sessionId) => {
            setListOpen(false)
            route.open(sessionId)
          }}
          onFresh={openFresh}
          onDeleted={(sessionId) => sessionId === route.sessionId && openFresh()}
        />
      </aside>
      <button
        type="button"
        className="veil"
        tabIndex={-1}
        aria-hidden="true"
        // It takes no focus, and so leaves none behind.
        onMouseDown={(event) => event.preventDefault()}
        onClick={() => setListOpen(false)}
      />
      <ChatInterface
        key={route.sessionId}
        sessionId={route.sessionId}
        known={route.known}
        title={title}
        inert={overlaid}
        onChange={sessions.touch}
        onAsk={route.spend}
        onUnsent={route.regain}
        onSettled={settled}
        onFresh={openFresh}
        onEscape={() => {
          setListOpen(false)
          return overlaid
        }}
        before={
          <button
            ref={show}
            type="button"
            className="tool narrow"
            aria-expanded={listOpen}
            title={texts.sessions.open}
            onClick={() => setListOpen(true)}
          >
            <MenuIcon />
            <span className="unseen">{texts.sessions.open}</span>
          </button>
        }
        after={
          <button
            type="button"
            className="tool wide"
            title={texts.shortcuts.button}
            onClick={() => setKeysOpen(true)}
          >
            <KeyboardIcon />
            <span className="unseen">{texts.shortcuts.button}</span>
          </button>
        }
      />
      {keysOpen && <Shortcuts onClose={() => setKeysOpen(false)} />}
    </div>
  )
}
