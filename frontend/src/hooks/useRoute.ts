import { useCallback, useEffect, useState } from 'react'
import { isSessionId, mintId } from '../chat/identifiers'

export interface Route {
  sessionId: string
  /** The server has, or may have, this session; a new chat's id is only minted. */
  known: boolean
}

export const pathOf = (sessionId: string): string => `/c/${sessionId}`

function routeOf(path: string): Route {
  const [, id] = /^\/c\/([^/]+)\/?$/.exec(path) ?? []
  return id && isSessionId(id) ? { sessionId: id.toLowerCase(), known: true } : { sessionId: mintId(), known: false }
}

interface Navigation extends Route {
  open(sessionId: string): void
  openFresh(): void
  /** The new chat has its first message: it has an address from now on. */
  settle(): void
}

export function useRoute(): Navigation {
  const [route, setRoute] = useState(() => routeOf(location.pathname))

  useEffect(() => {
    const follow = (): void => setRoute(routeOf(location.pathname))
    window.addEventListener('popstate', follow)
    return () => window.removeEventListener('popstate', follow)
  }, [])

  const go = useCallback((path: string) => {
    history.pushState(null, '', path)
    setRoute(routeOf(path))
  }, [])

  const settle = useCallback(() => {
    if (location.pathname === pathOf(route.sessionId)) return
    history.pushState(null, '', pathOf(route.sessionId))
    setRoute({ ...route, known: true })
  }, [route])

  return { ...route, open: (sessionId) => go(pathOf(sessionId)), openFresh: () => go('/'), settle }
}
