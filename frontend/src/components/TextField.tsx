import { type KeyboardEvent, type Ref, useImperativeHandle, useLayoutEffect, useRef } from 'react'

interface TextFieldProps {
  label: string
  text: string
  placeholder?: string
  autoFocus?: boolean
  testId?: string
  ref?: Ref<HTMLTextAreaElement>
  onText(text: string): void
  onEnter(): void
  onKeyDown?(event: KeyboardEvent<HTMLTextAreaElement>): void
}

/** A text area as high as its text. Enter submits, Shift+Enter makes a line, and an input method's Enter does neither. */
export function TextField({ label, text, testId, ref, onText, onEnter, onKeyDown, ...rest }: TextFieldProps) {
  const area = useRef<HTMLTextAreaElement>(null)
  useImperativeHandle(ref, () => area.current as HTMLTextAreaElement)

  // One goes on writing where the text ends.
  useLayoutEffect(() => area.current?.setSelectionRange(area.current.value.length, area.current.value.length), [])

  useLayoutEffect(() => {
    const field = area.current
    if (!field) return
    field.style.height = 'auto'
    field.style.height = `${field.scrollHeight}px`
  }, [text])

  return (
    <textarea
      ref={area}
      rows={1}
      dir="auto"
      aria-label={label}
      data-testid={testId}
      value={text}
      onChange={(event) => onText(event.target.value)}
      onKeyDown={(event) => {
        // Safari ends a composition before it tells of the Enter that ended it; only the old code 229 is left of it.
        const { isComposing, keyCode } = event.nativeEvent
        const submits = event.key === 'Enter' && !event.shiftKey && !isComposing && keyCode !== 229
        if (submits) {
          event.preventDefault()
          onEnter()
        }
        onKeyDown?.(event)
      }}
      {...rest}
    />
  )
}
