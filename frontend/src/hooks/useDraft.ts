import { useCallback, useState } from 'react'

const key = (name: string): string => `pulseline:draft:${name}`

// Storage may be forbidden or full; a draft then lives as long as the page.
function stored(name: string): string {
  try {
    return sessionStorage.getItem(key(name)) ?? ''
  } catch {
    return ''
  }
}

function store(name: string, text: string): void {
  try {
    if (text) sessionStorage.setItem(key(name), text)
    else sessionStorage.removeItem(key(name))
  } catch {
    // See above.
  }
}

export interface Draft {
  text: string
  write(text: string): void
  /** Empties the field, but keeps the text for a reload until `sent` is called. */
  lift(): string
  sent(text: string): void
}

export function useDraft(name: string): Draft {
  const [text, setText] = useState(() => stored(name))
  const write = useCallback(
    (next: string) => {
      setText(next)
      store(name, next)
    },
    [name],
  )
  return {
    text,
    write,
    lift: () => {
      setText('')
      return text
    },
    sent: (done) => {
      if (stored(name) === done) store(name, '')
    },
  }
}
