// What this tab keeps over a reload. Storage may be forbidden or full; then it is kept as long as the page.
const key = (name: string): string => `pulseline:${name}`

export function kept(name: string): string {
  try {
    return sessionStorage.getItem(key(name)) ?? ''
  } catch {
    return ''
  }
}

export function keep(name: string, text: string): void {
  try {
    if (text) sessionStorage.setItem(key(name), text)
    else sessionStorage.removeItem(key(name))
  } catch {
    // See above.
  }
}
