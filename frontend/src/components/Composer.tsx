import { type MouseEvent, type Ref, useCallback, useEffect, useImperativeHandle, useRef } from 'react'
import { useDraft } from '../hooks/useDraft'
import { texts } from '../texts'
import { SendIcon, StopIcon } from './Icons'
import { TextField } from './TextField'

const MESSAGE_MAX_CHARACTERS = 4000
const COUNT_FROM_CHARACTERS = 3600
// Send and Stop stand in one place: a second click that comes so soon was meant for Send. Keys have no such place.
const DOUBLE_CLICK_MILLISECONDS = 400

const hasMouse = (): boolean => matchMedia('(pointer: fine)').matches

export interface ComposerHandle {
  focus(): void
  /** Takes the focus over from a control that goes away; a finger's without opening the keyboard. */
  receive(): void
  /** Sends what was chosen, not written: what stands in the field stays there. */
  ask(question: string): void
  /** Puts a message that could not be sent back into the field. */
  restore(text: string): void
}

interface ComposerProps {
  sessionId: string
  /** A message is on its way, or could not be sent; the log does not have it yet. */
  pending: boolean
  /** What could not be sent: the next message takes its place, and it comes back into the field. */
  unsent: string
  placeholder: string
  busy: boolean
  stopping: boolean
  ref: Ref<ComposerHandle>
  onSend(text: string): Promise<boolean>
  onStop(): void
  onEditLast(): void
}

export function Composer({ sessionId, pending, unsent, placeholder, busy, stopping, ref, ...actions }: ComposerProps) {
  const { onSend, onStop, onEditLast } = actions
  const draft = useDraft(sessionId)
  const form = useRef<HTMLFormElement>(null)
  const field = useRef<HTMLTextAreaElement>(null)
  const sentAt = useRef(-Infinity)
  const message = draft.text.trim()
  // The server counts code points, not UTF-16 units.
  const length = Array.from(message).length
  const sendable = !busy && length > 0 && length <= MESSAGE_MAX_CHARACTERS

  const { forget } = draft
  // Also when one has gone elsewhere meanwhile.
  const send = async (text: string, rest: string): Promise<void> => {
    draft.lift(text, rest)
    if (await onSend(text.trim())) forget(text)
  }
  const submit = (): void => {
    if (sendable) void send(draft.text, unsent)
  }

  const receive = (): void => {
    const byKey = document.activeElement?.matches(':focus-visible')
    const target = byKey || hasMouse() ? field : form
    target.current?.focus({ preventScroll: true })
  }
  useImperativeHandle(ref, () => ({
    focus: () => field.current?.focus(),
    receive,
    ask: (question) => void send(question, draft.text),
    restore: (text) => {
      draft.write(draft.text ? `${text}\n${draft.text}` : text)
      field.current?.focus()
    },
  }))

  // An answer may end while the focus is on the button that stops it.
  const stopButton = useCallback((button: HTMLButtonElement) => {
    return () => {
      if (document.activeElement === button) field.current?.focus({ preventScroll: true })
    }
  }, [])

  const wasPending = useRef(pending)
  useEffect(() => {
    if (wasPending.current && !pending) forget()
    wasPending.current = pending
  }, [pending, forget])

  // The button that was pressed goes away, and the focus must not go with it.
  const pressSend = ({ timeStamp, detail }: MouseEvent): void => {
    sentAt.current = timeStamp
    if (detail === 0 || hasMouse()) field.current?.focus()
  }
  const pressStop = ({ timeStamp, detail }: MouseEvent): void => {
    if (detail > 1 || (detail === 1 && timeStamp - sentAt.current < DOUBLE_CLICK_MILLISECONDS)) return
    receive()
    onStop()
  }

  return (
    <form
      ref={form}
      tabIndex={-1}
      className="composer"
      onSubmit={(event) => {
        event.preventDefault()
        submit()
      }}
    >
      <TextField
        ref={field}
        testId="composer"
        label={texts.composer.label}
        placeholder={placeholder}
        text={draft.text}
        autoFocus={hasMouse()}
        onText={draft.write}
        onEnter={submit}
        onKeyDown={(event) => {
          if (event.key !== 'ArrowUp' || draft.text !== '') return
          event.preventDefault()
          onEditLast()
        }}
      />
      <Length length={length} />
      {busy ? (
        <button
          key="stop"
          ref={stopButton}
          type="button"
          className="submit"
          data-testid="stop"
          disabled={stopping}
          onClick={pressStop}
        >
          <StopIcon />
          <span>{stopping ? texts.composer.stopping : texts.composer.stop}</span>
        </button>
      ) : (
        <button
          key="send"
          type="submit"
          className="submit"
          data-testid="send"
          disabled={!sendable}
          title={texts.composer.send}
          onClick={pressSend}
        >
          <SendIcon />
          <span className="unseen">{texts.composer.send}</span>
        </button>
      )}
    </form>
  )
}

function Length({ length }: { length: number }) {
  if (length < COUNT_FROM_CHARACTERS) return null
  const left = MESSAGE_MAX_CHARACTERS - length
  return (
    <span className="length" data-over={left < 0 || undefined}>
      {left < 0 ? texts.composer.tooLong(-left) : texts.composer.left(left)}
    </span>
  )
}
