import { type RefObject, useEffect, useRef, useState } from 'react'
import type { Sessions } from '../hooks/useSessions'
import { pathOf } from '../hooks/useRoute'
import { texts } from '../texts'
import type { SessionItem } from '../types/streaming'
import { Dialog } from './Dialog'
import { EditIcon, PlusIcon, TrashIcon } from './Icons'

interface SessionListProps {
  sessions: Sessions
  current: string
  searchField: RefObject<HTMLInputElement | null>
  onOpen(sessionId: string): void
  onFresh(): void
  onDeleted(sessionId: string): void
}

export function SessionList({ sessions, current, searchField, onOpen, onFresh, onDeleted }: SessionListProps) {
  const [deleting, setDeleting] = useState<SessionItem | null>(null)
  const [unrenamed, setUnrenamed] = useState('')
  const fresh = useRef<HTMLButtonElement>(null)
  const orphaned = useRef(false)
  useEffect(() => {
    if (!deleting && orphaned.current) fresh.current?.focus()
    orphaned.current = false
  }, [deleting])
  const list = useRef<HTMLUListElement>(null)
  const unfolding = useRef(false)
  useEffect(() => {
    // The button that was pressed goes with the last page.
    if (unfolding.current && document.activeElement === document.body) {
      list.current?.querySelector<HTMLElement>('li:last-child a')?.focus()
    }
    unfolding.current = false
  }, [sessions.items.length])
  const { items, query, loaded, failed } = sessions
  // It has been read by whoever goes to another chat.
  useEffect(() => setUnrenamed(''), [current])
  const rename = async (sessionId: string, title: string): Promise<void> => {
    setUnrenamed('')
    await sessions.rename(sessionId, title).catch(() => {
      setUnrenamed(title)
      sessions.reload()
    })
  }
  return (
    <nav className="sessions" aria-label={texts.sessions.label}>
      <button ref={fresh} type="button" className="fresh" data-testid="new-chat" onClick={onFresh}>
        <PlusIcon /> {texts.sessions.fresh}
      </button>
      <input
        ref={searchField}
        type="search"
        data-testid="session-search"
        aria-label={texts.sessions.search}
        placeholder={texts.sessions.search}
        value={query}
        onChange={(event) => sessions.search(event.target.value)}
        onKeyDown={(event) => {
          // It empties the field, and stops no answer.
          if (event.key !== 'Escape' || !query) return
          event.stopPropagation()
          sessions.search('')
        }}
      />
      {failed && (
        <p className="hint">
          {texts.sessions.failed}{' '}
          <button
            type="button"
            className="quiet"
            onClick={() => {
              fresh.current?.focus()
              sessions.reload()
            }}
          >
            {texts.problem.retry}
          </button>
        </p>
      )}
      {unrenamed && (
        <p className="hint">
          <span role="alert">{texts.sessions.unrenamed(unrenamed)}</span>{' '}
          <button
            type="button"
            className="quiet"
            onClick={() => {
              fresh.current?.focus()
              setUnrenamed('')
            }}
          >
            {texts.sessions.dismiss}
          </button>
        </p>
      )}
      {loaded && items.length === 0 && <p className="hint">{query ? texts.sessions.noneFound : texts.sessions.none}</p>}
      <ul ref={list}>
        {items.map((item) => (
          <Item
            key={item.session_id}
            item={item}
            current={item.session_id === current}
            onOpen={() => onOpen(item.session_id)}
            onRename={(title) => void rename(item.session_id, title)}
            onDelete={() => setDeleting(item)}
          />
        ))}
      </ul>
      {sessions.hasMore && (
        <button
          type="button"
          className="quiet more"
          onClick={() => {
            unfolding.current = true
            sessions.more()
          }}
        >
          {texts.sessions.more}
        </button>
      )}
      {deleting && (
        <Deletion
          title={titleOf(deleting)}
          onClose={() => setDeleting(null)}
          onConfirm={async () => {
            await sessions.remove(deleting.session_id)
            onDeleted(deleting.session_id)
            // The button that had the focus is gone with its conversation; a new chat takes the focus by itself.
            orphaned.current = deleting.session_id !== current
          }}
        />
      )}
    </nav>
  )
}

const titleOf = (item: SessionItem): string => item.title || texts.sessions.untitled

interface ItemProps {
  item: SessionItem
  current: boolean
  onOpen(): void
  onRename(title: string): void
  onDelete(): void
}

function Item({ item, current, onOpen, onRename, onDelete }: ItemProps) {
  const [renaming, setRenaming] = useState(false)
  const link = useRef<HTMLAnchorElement>(null)
  const back = useRef(false)
  useEffect(() => {
    if (!renaming && back.current) link.current?.focus()
    back.current = false
  }, [renaming])
  const title = titleOf(item)
  if (renaming) {
    return (
      <li className="session">
        <Rename
          title={title}
          onRename={onRename}
          onClose={(byKey) => {
            back.current = byKey
            setRenaming(false)
          }}
        />
      </li>
    )
  }
  return (
    <li className="session" data-testid="session-item" data-session={item.session_id} data-running={item.running}>
      <a
        ref={link}
        href={pathOf(item.session_id)}
        dir="auto"
        aria-current={current ? 'page' : undefined}
        title={title}
        onClick={(event) => {
          if (event.metaKey || event.ctrlKey || event.shiftKey) return
          event.preventDefault()
          onOpen()
        }}
      >
        {title}
        {item.running && <span className="unseen"> ({texts.sessions.running})</span>}
      </a>
      <span className="session-tools">
        <button type="button" className="tool" title={texts.sessions.rename(title)} onClick={() => setRenaming(true)}>
          <EditIcon />
          <span className="unseen">{texts.sessions.rename(title)}</span>
        </button>
        <button type="button" className="tool" title={texts.sessions.delete(title)} onClick={onDelete}>
          <TrashIcon />
          <span className="unseen">{texts.sessions.delete(title)}</span>
        </button>
      </span>
    </li>
  )
}

interface RenameProps {
  title: string
  onRename(title: string): void
  /** By a key the focus was in the field, and goes back to the list. */
  onClose(byKey: boolean): void
}

function Rename({ title, onRename, onClose }: RenameProps) {
  const [text, setText] = useState(title)
  const keep = (byKey: boolean): void => {
    const renamed = text.trim()
    if (renamed && renamed !== title) onRename(renamed)
    onClose(byKey)
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault()
        keep(true)
      }}
    >
      <input
        autoFocus
        maxLength={200}
        dir="auto"
        aria-label={texts.sessions.renameLabel}
        value={text}
        onChange={(event) => setText(event.target.value)}
        onFocus={(event) => event.target.setSelectionRange(0, title.length, 'backward')}
        onBlur={() => keep(false)}
        onKeyDown={(event) => {
          if (event.key !== 'Escape') return
          event.stopPropagation()
          onClose(true)
        }}
      />
    </form>
  )
}

interface DeletionProps {
  title: string
  onClose(): void
  onConfirm(): Promise<void>
}

function Deletion({ title, onClose, onConfirm }: DeletionProps) {
  const [failed, setFailed] = useState('')
  const confirm = async (): Promise<void> => {
    try {
      await onConfirm()
      onClose()
    } catch (reason) {
      setFailed(reason instanceof Error ? reason.message : String(reason))
    }
  }
  return (
    <Dialog label={texts.deletion.heading} onClose={onClose}>
      <h2>{texts.deletion.heading}</h2>
      <p>{texts.deletion.body(title)}</p>
      {failed && (
        <p className="failure" role="alert">
          {failed}
        </p>
      )}
      <div className="choices">
        <button type="button" className="quiet" onClick={onClose}>
          {texts.deletion.cancel}
        </button>
        <button type="button" className="button danger" data-testid="confirm-delete" onClick={() => void confirm()}>
          {texts.deletion.confirm}
        </button>
      </div>
    </Dialog>
  )
}
