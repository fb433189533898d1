import { useEffect, useRef } from 'react'

type Shortcuts = Record<string, () => void>

const TYPING = 'input, textarea, select, [contenteditable]'

/** `Alt+n` and the like work everywhere, a bare key only outside text fields, Escape also inside them. */
function nameOf(event: KeyboardEvent): string {
  if (event.altKey) return `Alt+${event.code.replace('Key', '').toLowerCase()}`
  return event.ctrlKey || event.metaKey ? '' : event.key
}

export function useShortcuts(shortcuts: Shortcuts): void {
  const latest = useRef(shortcuts)
  useEffect(() => {
    latest.current = shortcuts
  })
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const name = nameOf(event)
      const typing = event.target instanceof Element && event.target.closest(TYPING) !== null
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
