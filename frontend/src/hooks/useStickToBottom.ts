import { type RefObject, useCallback, useEffect, useRef, useState } from 'react'

const NEAR_PIXELS = 64
const PINNED_PIXELS = 16

interface Sticking {
  scroller: RefObject<HTMLDivElement | null>
  content: RefObject<HTMLDivElement | null>
  atBottom: boolean
  jump(): void
}

/** What scrolls up by keyboard, with the focus on nothing that uses these keys itself. */
const UP_KEYS = new Set(['ArrowUp', 'PageUp', 'Home'])

/**
 * Follows growing content only while the reader is at the bottom. Any wish to go up lets go at once, before it has moved
 * anything: what follows would take back a small or slow move. Going down to the bottom sticks again.
 * The last element that `pinned` selects is never scrolled out at the top.
 */
export function useStickToBottom(pinned: string): Sticking {
  const scroller = useRef<HTMLDivElement>(null)
  const content = useRef<HTMLDivElement>(null)
  const sticking = useRef(true)
  const previous = useRef(0)
  const [atBottom, setAtBottom] = useState(true)

  const scrollTo = useCallback((box: HTMLElement, top: number) => {
    box.scrollTop = top
    previous.current = box.scrollTop
  }, [])

  const jump = useCallback(() => {
    sticking.current = true
    setAtBottom(true)
    const box = scroller.current
    if (box) scrollTo(box, box.scrollHeight)
  }, [scrollTo])

  const follow = useCallback(
    (box: HTMLElement) => {
      const pin = Array.from(box.querySelectorAll<HTMLElement>(pinned)).at(-1)
      const top = pin ? pin.getBoundingClientRect().top - box.getBoundingClientRect().top + box.scrollTop : Infinity
      scrollTo(box, Math.min(box.scrollHeight, top - PINNED_PIXELS))
    },
    [pinned, scrollTo],
  )

  useEffect(() => {
    const box = scroller.current
    const grown = content.current
    if (!box || !grown) return
    const isNear = (): boolean => box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PIXELS
    const look = (): void => setAtBottom(isNear() || sticking.current)
    // Only by the scrollbar does a reader go up without a sign; content that shrinks scrolls too, but stays at the bottom.
    const scrolled = (): void => {
      if (isNear() && box.scrollTop > previous.current) sticking.current = true
      else if (!isNear() && box.scrollTop < previous.current) sticking.current = false
      previous.current = box.scrollTop
      look()
    }
    const observer = new ResizeObserver(() => {
      if (sticking.current) follow(box)
      look()
    })
    observer.observe(grown)
    observer.observe(box)
    const stop = listenForUp(box, () => {
      if (box.scrollTop > 0) sticking.current = false
    })
    box.addEventListener('scroll', scrolled, { passive: true })
    return () => {
      observer.disconnect()
      stop()
      box.removeEventListener('scroll', scrolled)
    }
  }, [follow])

  return { scroller, content, atBottom, jump }
}

/** Calls `up` when the wheel, a finger or a key is about to scroll the box up. */
function listenForUp(box: HTMLElement, up: () => void): () => void {
  const listening = new AbortController()
  const options = { passive: true, signal: listening.signal }
  let finger = 0
  const touched = ({ touches }: TouchEvent): void => {
    const y = touches[0]?.clientY ?? 0
    if (y > finger) up()
    finger = y
  }
  box.addEventListener('wheel', ({ deltaY }) => deltaY < 0 && up(), options)
  box.addEventListener('touchstart', ({ touches }) => (finger = touches[0]?.clientY ?? 0), options)
  box.addEventListener('touchmove', touched, options)
  document.addEventListener(
    'keydown',
    ({ key, shiftKey, target }) => {
      const scrolls = target === document.body || (target instanceof Node && box.contains(target))
      if (scrolls && (UP_KEYS.has(key) || (key === ' ' && shiftKey))) up()
    },
    options,
  )
  return () => listening.abort()
}
