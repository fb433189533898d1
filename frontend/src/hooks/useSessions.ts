import { useCallback, useEffect, useRef, useState } from 'react'
import { deleteSession, listSessions, renameSession } from '../chat/api'
import { announceChange, onChangeElsewhere } from '../chat/tabs'
import type { SessionItem } from '../types/streaming'

const TYPING_PAUSE_MILLISECONDS = 200
const TOGETHER_MILLISECONDS = 100

export interface Sessions {
  items: SessionItem[]
  query: string
  failed: boolean
  loaded: boolean
  hasMore: boolean
  search(query: string): void
  more(): void
  reload(): void
  /** A conversation has begun, or ended its answer: this tab and the others read the list again. */
  touch(): void
  rename(sessionId: string, title: string): Promise<void>
  remove(sessionId: string): Promise<void>
}

interface Page {
  items: SessionItem[]
  next: string | null
  loaded: boolean
  failed: boolean
}

const NOTHING: Page = { items: [], next: null, loaded: false, failed: false }

/** The list of conversations, newest first; read again when something here or in another tab changes it. */
export function useSessions(): Sessions {
  const [query, setQuery] = useState('')
  const [page, setPage] = useState(NOTHING)
  const asked = useRef(0)

  const load = useCallback(
    async (before: string | null) => {
      asked.current += 1
      const ask = asked.current
      const answer = await listSessions(query, before).catch(() => null)
      // An older question's answer must not replace a newer one's.
      if (ask !== asked.current) return
      setPage((shown) => {
        if (!answer) return { ...shown, failed: true }
        const items = before ? [...shown.items, ...answer.sessions] : answer.sessions
        return { items, next: answer.next, loaded: true, failed: false }
      })
    },
    [query],
  )
  const soon = useRef<ReturnType<typeof setTimeout>>(undefined)
  // What changes at the same time is one change, and a hidden tab reads when it is shown.
  const reload = useCallback(
    (after = TOGETHER_MILLISECONDS) => {
      clearTimeout(soon.current)
      if (!document.hidden) soon.current = setTimeout(() => void load(null), after)
    },
    [load],
  )
  const touch = useCallback(() => {
    announceChange()
    reload()
  }, [reload])

  useEffect(() => {
    reload(query ? TYPING_PAUSE_MILLISECONDS : 0)
    return () => clearTimeout(soon.current)
  }, [reload, query])

  useEffect(() => {
    const listening = new AbortController()
    const { signal } = listening
    document.addEventListener('visibilitychange', () => reload(), { signal })
    onChangeElsewhere(() => reload(), signal)
    return () => listening.abort()
  }, [reload])

  const changed = (change: Promise<void>): Promise<void> => change.then(touch)

  return {
    items: page.items,
    query,
    failed: page.failed,
    loaded: page.loaded,
    hasMore: page.next !== null,
    search: setQuery,
    more: () => void load(page.next),
    reload: () => reload(0),
    touch,
    rename: (sessionId, title) => changed(renameSession(sessionId, { title })),
    remove: (sessionId) => changed(deleteSession(sessionId)),
  }
}
