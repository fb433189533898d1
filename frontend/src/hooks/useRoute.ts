import { useCallback, useEffect, useRef, useState } from 'react'
import { isSessionId, mintId } from '../chat/identifiers'
import { keep, kept } from '../chat/storage'

export interface Route {
  sessionId: string
  /** The server has, or may have, this session; a new chat's id is only minted. */
  known: boolean
}

export const pathOf = (sessionId: string): string => `/c/${sessionId}`

// New chats that the server does not have yet: each keeps its id, and by it its draft, over a reload and while one looks
// elsewhere. There is more than one only while the first message of another is on its way, or after it could not be sent.
// The first is the one that was opened last.
const FRESH = 'fresh'

const freshIds = (): string[] => kept(FRESH).split(' ').filter(isSessionId)

/** Another than the open one, if there is one. */
function freshId(isTaken: (id: string) => boolean | undefined, open?: string): string {
  const before = freshIds()
  const free = before.filter((id) => !isTaken(id))
  const id = free.find((one) => one !== open) ?? free[0] ?? mintId()
  keep(FRESH, [id, ...before.filter((one) => one !== id)].join(' '))
  return id
}

function routeOf(path: string, isTaken: (id: string) => boolean | undefined, open?: string): Route {
  const [, id] = /^\/c\/([^/]+)\/?$/.exec(path) ?? []
  return id && isSessionId(id) ? { sessionId: id.toLowerCase(), known: true } : { sessionId: freshId(isTaken, open), known: false }
}

interface Navigation extends Route {
  open(sessionId: string): void
  openFresh(): void
  /** A new chat's first message is on its way: the next new chat is another one. */
  spend(sessionId: string): void
  /** It could not be sent: the new chat is still new. */
  regain(sessionId: string): void
  /** The server has this session: it has an address from now on, if it is still the one that is open. */
  settle(sessionId: string): void
}

export function useRoute(): Navigation {
  // Whether its first message is on its way now; it was, in each that is here.
  const asked = useRef(new Map<string, boolean>())
  const [route, setRoute] = useState(() => routeOf(location.pathname, () => false))

  // A message that could not be sent comes back into the field when its chat is opened again, but one leaves it first.
  const follow = useCallback(() => {
    const { current } = asked
    setRoute(({ sessionId }) =>
      routeOf(location.pathname, (id) => current.get(id) || (id === sessionId && current.has(id)), sessionId),
    )
  }, [])

  useEffect(() => {
    window.addEventListener('popstate', follow)
    return () => window.removeEventListener('popstate', follow)
  }, [follow])

  useEffect(() => {
    if (route.known && location.pathname !== pathOf(route.sessionId)) {
      history.replaceState(null, '', pathOf(route.sessionId))
    }
  }, [route])

  const go = useCallback((path: string) => {
    history.pushState(null, '', path)
    follow()
  }, [follow])

  const settle = useCallback((sessionId: string) => {
    keep(FRESH, freshIds().filter((id) => id !== sessionId).join(' '))
    setRoute((open) => (open.sessionId === sessionId && !open.known ? { sessionId, known: true } : open))
  }, [])

  const spend = useCallback((sessionId: string) => void asked.current.set(sessionId, true), [])
  const regain = useCallback((sessionId: string) => void asked.current.set(sessionId, false), [])

  return {
    ...route,
    open: (sessionId) => go(pathOf(sessionId)),
    openFresh: () => go('/'),
    spend,
    regain,
    settle,
  }
}
