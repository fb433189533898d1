import { useEffect, useRef, useState } from 'react'
import type { View } from '../chat/answers'
import type { Notice } from '../hooks/useConnectionNotice'
import { texts } from '../texts'

interface AnnouncerProps {
  views: readonly View[]
  /** False while the conversation is being loaded: what was there already is not announced. */
  ready: boolean
  notice: Notice
}

/** The page's voice for screen readers: always mounted, it speaks at boundaries and never reads tokens. An emergency interrupts. */
export function Announcer({ views, ready, notice }: AnnouncerProps) {
  const sentence = boundary(views.at(-1))
  const there = useRef<string | null>(null)
  const [said, setSaid] = useState('')
  const urgent = said === texts.announce.emergency

  useEffect(() => {
    if (!ready) return
    there.current ??= sentence
    if (sentence !== there.current) {
      there.current = ''
      setSaid(sentence)
    }
  }, [ready, sentence])

  return (
    <>
      <p className="unseen" role="status" data-testid="announcer">
        {notice ? texts.connection[notice] : urgent ? '' : said}
      </p>
      <p className="unseen" role="alert" data-testid="alarm">
        {urgent && said}
      </p>
    </>
  )
}

function boundary(view: View | undefined): string {
  if (!view) return ''
  if (view.kind === 'question') return view.pending?.failed ? '' : texts.announce.sent
  if (view.agent === 'safety') return texts.announce.emergency
  switch (view.status) {
    case 'running': {
      if (view.restarting) return texts.announce.restarting
      const stage = view.stages.at(-1)
      return stage ? texts.announce.stage(stage.name) : texts.announce.sent
    }
    case 'complete':
      if (view.asked.length > 0) return texts.announce.asked
      return texts.announce.complete(view.sources.length)
    case 'cancelled':
      return texts.announce.stopped
    case 'error':
      return texts.announce.failed(view.error?.message ?? '')
  }
}
