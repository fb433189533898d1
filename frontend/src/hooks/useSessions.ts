import { useCallback, useEffect, useRef, useState } from 'react'
import { deleteSession, listSessions, renameSession } from '../chat/api'
import { announceChange, onChangeElsewhere } from '../chat/tabs'
import type { SessionItem, SessionPage } from '../types/streaming'

const TYPING_PAUSE_MILLISECONDS = 200
const TOGETHER_MILLISECONDS = 100
const RUNNING_SECONDS = 5

export interface Sessions {
  items: SessionItem[]
  /** Of all conversations that were ever in the list, also while it is searched. */
  titles: Readonly<Record<string, string>>
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

/** The first pages, until they hold `count` conversations. */
async function readList(query: string, count: number): Promise<SessionPage> {
  const found = new Map<string, SessionItem>()
  let next: string | null = null
  do {
    const page: SessionPage = await listSessions(query, next)
    for (const item of page.sessions) found.set(item.session_id, item)
    next = page.next
  } while (next && found.size < count)
  return { sessions: [...found.values()], next }
}

/** The list of conversations, newest first; read again when something here or in another tab changes it. */
export function useSessions(): Sessions {
  const [query, setQuery] = useState('')
  const [page, setPage] = useState(NOTHING)
  const [titles, setTitles] = useState<Record<string, string>>({})
  const asked = useRef(0)
  const wanted = useRef(0)

  const load = useCallback(
    async () => {
      asked.current += 1
      const ask = asked.current
      const answer = await readList(query, wanted.current).catch(() => null)
      // An older question's answer must not replace a newer one's.
      if (ask !== asked.current) return
      if (!answer) return setPage((shown) => ({ ...shown, failed: true }))
      // Whoever has unfolded older ones keeps them.
      wanted.current = answer.sessions.length
      setPage({ items: answer.sessions, next: answer.next, loaded: true, failed: false })
      setTitles((known) => ({ ...known, ...Object.fromEntries(answer.sessions.map((s) => [s.session_id, s.title])) }))
    },
    [query],
  )
  const soon = useRef<ReturnType<typeof setTimeout>>(undefined)
  // What changes at the same time is one change, and a hidden tab reads when it is shown.
  const reload = useCallback(
    (after = TOGETHER_MILLISECONDS) => {
      clearTimeout(soon.current)
      if (!document.hidden) soon.current = setTimeout(() => void load(), after)
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
    window.addEventListener('online', () => reload(), { signal })
    onChangeElsewhere(() => reload(), signal)
    return () => listening.abort()
  }, [reload])

  // An answer that ends in a conversation that is not open tells nobody.
  const running = page.items.some((item) => item.running)
  useEffect(() => {
    if (!running) return
    const looking = setInterval(() => reload(0), RUNNING_SECONDS * 1000)
    return () => clearInterval(looking)
  }, [running, reload])

  const changed = (change: Promise<void>): Promise<void> => change.then(touch)

  return {
    items: page.items,
    titles,
    query,
    failed: page.failed,
    loaded: page.loaded,
    hasMore: page.next !== null,
    search: (next) => {
      wanted.current = 0
      setQuery(next)
    },
    more: () => {
      wanted.current = page.items.length + 1
      void load()
    },
    reload: () => reload(0),
    touch,
    rename: (sessionId, title) =>
      changed(renameSession(sessionId, { title })).then(() => setTitles((known) => ({ ...known, [sessionId]: title }))),
    remove: (sessionId) => changed(deleteSession(sessionId)),
  }
}
