import { useEffect, useState } from 'react'
import type { Connection } from '../chat/tail'

// The ordinary end of a window, and a short hiccup, are over before anyone need know.
export const SHOW_AFTER_SECONDS = 1
const CAUGHT_UP_SECONDS = 2.5

export type Notice = 'lost' | 'offline' | 'caughtUp' | null

/** Says that the connection is lost once it has been for a second, and when that is over. */
export function useConnectionNotice(connection: Connection): Notice {
  const [notice, setNotice] = useState<Notice>(null)
  const away = connection === 'lost' || connection === 'offline' ? connection : null

  useEffect(() => {
    if (away) {
      const late = setTimeout(() => setNotice(away), SHOW_AFTER_SECONDS * 1000)
      return () => clearTimeout(late)
    }
    // A tab that comes back to the front connects anew, too: not caught up yet.
    if (connection === 'connecting' || connection === 'paused') return
    setNotice((before) => (before === null ? null : 'caughtUp'))
    const gone = setTimeout(() => setNotice(null), CAUGHT_UP_SECONDS * 1000)
    return () => clearTimeout(gone)
  }, [away, connection])

  return notice
}
