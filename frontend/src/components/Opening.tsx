import { useEffect, useRef } from 'react'
import type { StreamingChat } from '../hooks/useStreamingChat'
import { texts } from '../texts'
import { EmptyState } from './EmptyState'

interface OpeningProps {
  chat: StreamingChat
  onAsk(question: string): void
  onRetry(): void
  onFresh(): void
}

/** What stands where the messages will be. */
export function Opening({ chat, onAsk, onRetry, onFresh }: OpeningProps) {
  switch (chat.phase) {
    case 'ready':
      return <EmptyState onAsk={onAsk} />
    case 'loading':
      return <p className="hint late">{texts.conversation.loading}</p>
    case 'missing':
      return <Missing onFresh={onFresh} />
    case 'unreachable':
      return (
        <section className="empty" data-testid="error">
          <h2>{texts.conversation.unreachableHeading}</h2>
          <p>{chat.problem?.message}</p>
          <button type="button" className="button" onClick={onRetry}>
            {texts.problem.retry}
          </button>
        </section>
      )
  }
}

function Missing({ onFresh }: { onFresh(): void }) {
  const button = useRef<HTMLButtonElement>(null)
  // It may have been deleted in another tab while one wrote in the text field of this one, which is gone.
  useEffect(() => {
    if (document.activeElement === document.body) button.current?.focus()
  }, [])
  return (
    <section className="empty" data-testid="error">
      <h2>{texts.conversation.missingHeading}</h2>
      <p role="alert">{texts.conversation.missing}</p>
      <button ref={button} type="button" className="button" onClick={onFresh}>
        {texts.sessions.fresh}
      </button>
    </section>
  )
}
