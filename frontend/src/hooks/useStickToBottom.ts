import { type RefObject, useCallback, useEffect, useRef, useState } from 'react'

const NEAR_PIXELS = 64
const PINNED_PIXELS = 16

interface Sticking {
  scroller: RefObject<HTMLDivElement | null>
  content: RefObject<HTMLDivElement | null>
  atBottom: boolean
  jump(): void
}

/**
 * Follows growing content only while the reader is at the bottom; scrolling up lets go.
 * The last element that `pinned` selects is never scrolled out at the top.
 */
export function useStickToBottom(pinned: string): Sticking {
  const scroller = useRef<HTMLDivElement>(null)
  const content = useRef<HTMLDivElement>(null)
  const sticking = useRef(true)
  const [atBottom, setAtBottom] = useState(true)

  const jump = useCallback(() => {
    sticking.current = true
    setAtBottom(true)
    const box = scroller.current
    if (box) box.scrollTop = box.scrollHeight
  }, [])

  const follow = useCallback(
    (box: HTMLElement) => {
      const pin = Array.from(box.querySelectorAll<HTMLElement>(pinned)).at(-1)
      const top = pin ? pin.getBoundingClientRect().top - box.getBoundingClientRect().top + box.scrollTop : Infinity
      box.scrollTop = Math.min(box.scrollHeight, top - PINNED_PIXELS)
    },
    [pinned],
  )

  useEffect(() => {
    const box = scroller.current
    const grown = content.current
    if (!box || !grown) return
    let previous = box.scrollTop
    const scrolled = (): void => {
      const near = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PIXELS
      // Content that shrinks scrolls too; only a move upwards that leaves the bottom is the reader's.
      if (near) sticking.current = true
      else if (box.scrollTop < previous) sticking.current = false
      previous = box.scrollTop
      setAtBottom(near || sticking.current)
    }
    const observer = new ResizeObserver(() => {
      if (sticking.current) follow(box)
      else scrolled()
    })
    observer.observe(grown)
    observer.observe(box)
    box.addEventListener('scroll', scrolled, { passive: true })
    return () => {
      observer.disconnect()
      box.removeEventListener('scroll', scrolled)
    }
  }, [follow])

  return { scroller, content, atBottom, jump }
}
