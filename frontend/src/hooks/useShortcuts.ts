import { useEffect, useRef } from 'react'

type Shortcuts = Record<string, () => void>

const TYPING = 'input, textarea, select, [contenteditable]'

/** `Alt+n` and the like work everywhere, a bare key only outside text fields, Escape also inside them. */
function nameOf(event: KeyboardEvent, typing: boolean): string {
  const letter = event.code.replace('Key', '').toLowerCase()
  // On many keyboards the same keys write a letter, as `ń` in Polish: in a text field that is what they are for.
  if (event.altKey) return typing && event.key.toLowerCase() !== letter ? '' : `Alt+${letter}`
  return event.ctrlKey || event.metaKey ? '' : event.key
}

export function useShortcuts(shortcuts: Shortcuts): void {
  const latest = useRef(shortcuts)
  useEffect(() => {
    latest.current = shortcuts
  })
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const typing = event.target instanceof Element && event.target.closest(TYPING) !== null
      const name = nameOf(event, typing)
      const action = latest.current[name]
      if (!action || event.isComposing || (typing && name.length === 1)) return
      // A modal dialog closes itself.
      if (document.querySelector('dialog:modal')) return
      event.preventDefault()
      action()
    }
    document.addEventListener('keydown', press)
    return () => document.removeEventListener('keydown', press)
  }, [])
}
