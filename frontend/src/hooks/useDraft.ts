import { useCallback, useState } from 'react'
import { keep, kept } from '../chat/storage'

// Apart from each other, for one writes on while the message is on its way.
const written = (sessionId: string): string => `draft:${sessionId}`
const lifted = (sessionId: string): string => `sent:${sessionId}`

const BEQUEATHED = 'bequeathed'

// A message that was on its way when the page was left comes back into the field.
function restored(sessionId: string): string {
  const parts = [kept(BEQUEATHED), kept(lifted(sessionId)), kept(written(sessionId))]
  const text = parts.filter(Boolean).join('\n')
  keep(BEQUEATHED, '')
  keep(lifted(sessionId), '')
  keep(written(sessionId), text)
  return text
}

/** Under this the last question is kept in other words, until the server has them. */
export const editOf = (turnId: string): string => `edit:${turnId}`

/** What was written in a conversation that is gone comes into the field that is opened next. */
export function bequeath(sessionId: string): void {
  const text = restored(sessionId)
  keep(written(sessionId), '')
  keep(BEQUEATHED, text)
}

export interface Draft {
  text: string
  write(text: string): void
  /** Keeps what is sent for a reload, and for whoever leaves, until it is forgotten; in the field stands the rest. */
  lift(sent: string, rest: string): void
  /** The server has the message, or it was taken back. */
  forget(sent?: string): void
}

export function useDraft(sessionId: string): Draft {
  const [text, setText] = useState(() => restored(sessionId))
  const write = useCallback(
    (next: string) => {
      setText(next)
      keep(written(sessionId), next)
    },
    [sessionId],
  )
  const lift = (sent: string, rest: string): void => {
    write(rest)
    keep(lifted(sessionId), sent)
  }
  const forget = useCallback(
    (sent?: string) => {
      keep(lifted(sessionId), '')
      // It may have come back into the field of a page that was opened meanwhile.
      if (sent && kept(written(sessionId)) === sent) keep(written(sessionId), '')
    },
    [sessionId],
  )
  return { text, write, lift, forget }
}
