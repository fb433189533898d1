import { useCallback, useEffect, useRef, useState } from 'react'
import { isSessionId, mintId } from '../chat/identifiers'
import { keep, kept } from '../chat/storage'

export interface Route {
  sessionId: string
  /** The server has, or may have, this session; a new chat's id is only minted. */
  known: boolean
}

export const pathOf = (sessionId: string): string => `/c/${sessionId}`

// The new chat keeps its id, and by it its draft, over a reload and while one looks elsewhere.
const FRESH = 'fresh'

function freshId(asked: string): string {
  const before = kept(FRESH)
  if (isSessionId(before) && before !== asked) return before
  const id = mintId()
  keep(FRESH, id)
  return id
}

function routeOf(path: string, asked: string): Route {
  const [, id] = /^\/c\/([^/]+)\/?$/.exec(path) ?? []
  return id && isSessionId(id) ? { sessionId: id.toLowerCase(), known: true } : { sessionId: freshId(asked), known: false }
}

interface Navigation extends Route {
  open(sessionId: string): void
  openFresh(): void
  /** The new chat's first message is on its way: the next new chat is another one. */
  spend(): void
  /** The server has this session: it has an address from now on, if it is still the one that is open. */
  settle(sessionId: string): void
}

export function useRoute(): Navigation {
  const asked = useRef('')
  const [route, setRoute] = useState(() => routeOf(location.pathname, ''))

  useEffect(() => {
    const follow = (): void => setRoute(routeOf(location.pathname, asked.current))
    window.addEventListener('popstate', follow)
    return () => window.removeEventListener('popstate', follow)
  }, [])

  useEffect(() => {
    if (route.known && location.pathname !== pathOf(route.sessionId)) {
      history.replaceState(null, '', pathOf(route.sessionId))
    }
  }, [route])

  const go = useCallback((path: string) => {
    history.pushState(null, '', path)
    setRoute(routeOf(path, asked.current))
  }, [])

  const settle = useCallback((sessionId: string) => {
    if (kept(FRESH) === sessionId) keep(FRESH, '')
    setRoute((open) => (open.sessionId === sessionId && !open.known ? { sessionId, known: true } : open))
  }, [])

  const spend = useCallback(() => {
    asked.current = route.sessionId
  }, [route])

  return {
    ...route,
    open: (sessionId) => go(pathOf(sessionId)),
    openFresh: () => go('/'),
    spend,
    settle,
  }
}
