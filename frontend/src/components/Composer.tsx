import { type Ref, useImperativeHandle, useRef } from 'react'
import { useDraft } from '../hooks/useDraft'
import { texts } from '../texts'
import { SendIcon, StopIcon } from './Icons'
import { TextField } from './TextField'

const MESSAGE_MAX_CHARACTERS = 4000
const COUNT_FROM_CHARACTERS = 3600

export interface ComposerHandle {
  focus(): void
  /** Puts a message that could not be sent back into the field. */
  restore(text: string): void
}

interface ComposerProps {
  draftName: string
  busy: boolean
  stopping: boolean
  ref: Ref<ComposerHandle>
  onSend(text: string): Promise<boolean>
  onStop(): void
  onEditLast(): void
}

export function Composer({ draftName, busy, stopping, ref, onSend, onStop, onEditLast }: ComposerProps) {
  const draft = useDraft(draftName)
  const field = useRef<HTMLTextAreaElement>(null)
  const message = draft.text.trim()
  // The server counts code points, not UTF-16 units.
  const length = Array.from(message).length
  const sendable = !busy && length > 0 && length <= MESSAGE_MAX_CHARACTERS

  useImperativeHandle(ref, () => ({
    focus: () => field.current?.focus(),
    restore: (text) => {
      draft.write(draft.text ? `${text}\n${draft.text}` : text)
      field.current?.focus()
    },
  }))

  const send = async (): Promise<void> => {
    if (!sendable) return
    const written = draft.lift()
    if (await onSend(written.trim())) draft.sent(written)
  }

  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault()
        void send()
      }}
    >
      <TextField
        ref={field}
        testId="composer"
        label={texts.composer.label}
        placeholder={texts.composer.placeholder}
        text={draft.text}
        autoFocus={matchMedia('(pointer: fine)').matches}
        onText={draft.write}
        onEnter={() => void send()}
        onKeyDown={(event) => {
          if (event.key !== 'ArrowUp' || draft.text !== '') return
          event.preventDefault()
          onEditLast()
        }}
      />
      <Length length={length} />
      {busy ? (
        <button type="button" className="submit" data-testid="stop" disabled={stopping} onClick={onStop}>
          <StopIcon />
          <span>{stopping ? texts.composer.stopping : texts.composer.stop}</span>
        </button>
      ) : (
        <button type="submit" className="submit" data-testid="send" disabled={!sendable} title={texts.composer.send}>
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
