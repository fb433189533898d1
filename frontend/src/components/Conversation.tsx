import { type ReactNode, useEffect } from 'react'
import type { View } from '../chat/answers'
import { useStickToBottom } from '../hooks/useStickToBottom'
import { texts } from '../texts'
import { Answer, type AnswerActions } from './Answer'
import { DownIcon } from './Icons'
import { Question, type QuestionActions } from './Question'

// Of an answer that may save a life the beginning comes first.
const EMERGENCY = '[role="log"] > :last-child .emergency'

interface ConversationProps extends AnswerActions, QuestionActions {
  views: readonly View[]
  lastTurnId: string | null
  /** The last answer has asked something, and waits. */
  waiting: boolean
  /** The button that was pressed for it goes away. */
  onJump(): void
  /** Stands in the conversation's place while it has no messages. */
  children: ReactNode
}

export function Conversation({ views, lastTurnId, waiting, onJump, children, ...actions }: ConversationProps) {
  const { scroller, content, atBottom, jump } = useStickToBottom(EMERGENCY)
  const { editing, onStartEdit, onStopEdit, onEdit, onResend, onDiscard, ...answering } = actions
  const questioning = { onStartEdit, onStopEdit, onEdit, onResend, onDiscard }
  const sending = views.at(-1)?.kind === 'question'

  // One's own question is always shown.
  useEffect(() => {
    if (sending) jump()
  }, [sending, jump])

  return (
    <div className="scroller" ref={scroller}>
      <div className="column" ref={content}>
        {views.length === 0 && children}
        {/* A log without announcements: tokens are not read aloud, the Announcer speaks at boundaries. */}
        <div role="log" aria-live="off" aria-label={texts.conversation.label}>
          {views.map((view) => {
            const last = lastTurnId !== null && view.turnId === lastTurnId
            return view.kind === 'question' ? (
              <Question key={view.id} question={view} last={last} editing={last && editing} {...questioning} />
            ) : (
              <Answer key={view.id} answer={view} last={last} waiting={waiting && view === views.at(-1)} {...answering} />
            )
          })}
        </div>
      </div>
      {!atBottom && (
        <button
          type="button"
          className="jump"
          title={texts.conversation.jump}
          onClick={() => {
            onJump()
            jump()
          }}
        >
          <DownIcon />
          <span className="unseen">{texts.conversation.jump}</span>
        </button>
      )}
    </div>
  )
}
