import { memo, useEffect, useState } from 'react'
import type { QuestionView } from '../chat/answers'
import { keep, kept } from '../chat/storage'
import { editOf } from '../hooks/useDraft'
import { texts } from '../texts'
import { EditIcon } from './Icons'
import { TextField } from './TextField'

export interface QuestionActions {
  editing: boolean
  onStartEdit(): void
  onStopEdit(): void
  onEdit(turnId: string, text: string): void
  onResend(): void
  onDiscard(): void
}

interface QuestionProps extends QuestionActions {
  question: QuestionView
  /** Only the last question can be asked anew. */
  last: boolean
}

export const Question = memo(function Question({ question, last, ...actions }: QuestionProps) {
  const { turnId, text, pending } = question
  const editable = last && turnId !== null
  return (
    <article className="question" data-testid="user-message" data-pending={pending !== null || undefined}>
      <h2 className="unseen">{texts.conversation.you}</h2>
      {editable && actions.editing ? (
        <EditForm turnId={turnId} text={text} onCancel={actions.onStopEdit} onSave={(edited) => actions.onEdit(turnId, edited)} />
      ) : (
        <p className="bubble" dir="auto" title={question.askedAt ? texts.question.askedAt(question.askedAt) : undefined}>
          {text}
        </p>
      )}
      {editable && !actions.editing && (
        <button type="button" className="tool" title={texts.question.edit} onClick={actions.onStartEdit}>
          <EditIcon />
          <span className="unseen">{texts.question.edit}</span>
        </button>
      )}
      {pending && !pending.failed && pending.turn_id === null && <Sending key={pending.request_id} />}
      {pending?.failed && (
        <div className="failure" data-testid="error" role="alert">
          <p>{pending.failed.message}</p>
          <div className="choices">
            {(pending.failed.passing || pending.failed.code === 'session_busy') && (
              <button type="button" className="button" onClick={actions.onResend}>
                {texts.question.resend}
              </button>
            )}
            <button type="button" className="quiet" onClick={actions.onDiscard}>
              {texts.question.discard}
            </button>
          </div>
        </div>
      )}
    </article>
  )
})

const SENDING_SECONDS = 1

/** A start takes no time; when this one does, one is told that it is not forgotten. */
function Sending() {
  const [late, setLate] = useState(false)
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), SENDING_SECONDS * 1000)
    return () => clearTimeout(timer)
  }, [])
  return (
    <p className="sending" role="status" data-testid="sending">
      {late && texts.question.sending}
    </p>
  )
}

interface EditFormProps {
  turnId: string
  text: string
  onCancel(): void
  onSave(text: string): void
}

function EditForm({ turnId, text, onCancel, onSave }: EditFormProps) {
  const [edited, setEdited] = useState(() => kept(editOf(turnId)) || text)
  const write = (next: string): void => {
    setEdited(next)
    keep(editOf(turnId), next === text ? '' : next)
  }
  const cancel = (): void => {
    keep(editOf(turnId), '')
    onCancel()
  }
  const save = (): void => {
    if (edited.trim()) onSave(edited.trim())
  }
  return (
    <form
      className="edit"
      onSubmit={(event) => {
        event.preventDefault()
        save()
      }}
      onKeyDown={(event) => {
        if (event.key !== 'Escape') return
        event.stopPropagation()
        cancel()
      }}
    >
      <TextField label={texts.question.editLabel} text={edited} onText={write} onEnter={save} autoFocus />
      <div className="choices">
        <button type="button" className="quiet" onClick={cancel}>
          {texts.question.cancel}
        </button>
        <button type="submit" className="button" disabled={!edited.trim()}>
          {texts.question.save}
        </button>
      </div>
    </form>
  )
}
