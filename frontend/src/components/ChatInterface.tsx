import { type ReactNode, useCallback, useEffect, useRef, useState } from 'react'
import { asMarkdown } from '../chat/answers'
import { sendFeedback } from '../chat/api'
import { OFFLINE } from '../chat/problem'
import { keep, kept } from '../chat/storage'
import { useConnectionNotice } from '../hooks/useConnectionNotice'
import { bequeath, editOf } from '../hooks/useDraft'
import { useShortcuts } from '../hooks/useShortcuts'
import { type StreamingChat, useStreamingChat } from '../hooks/useStreamingChat'
import { texts } from '../texts'
import { Announcer } from './Announcer'
import type { Vote } from './Answer'
import { Composer, type ComposerHandle } from './Composer'
import { Conversation } from './Conversation'
import { ExportIcon } from './Icons'
import { Opening } from './Opening'
import { SourcePanel } from './SourcePanel'

interface ChatInterfaceProps {
  sessionId: string
  known: boolean
  title: string
  /** Something lies over it. */
  inert: boolean
  /** Buttons that stand before and after the title. */
  before: ReactNode
  after: ReactNode
  /** The server has a message, or a turn has ended. */
  onChange(): void
  /** The first message of this session is on its way. */
  onAsk(sessionId: string): void
  /** It could not be sent. */
  onUnsent(sessionId: string): void
  /** The server has this session. */
  onSettled(sessionId: string): void
  onFresh(): void
  /** True when there was something over the chat that Escape has closed. */
  onEscape(): boolean
}

interface Shown {
  turnId: string
  number: number
}

export function ChatInterface(props: ChatInterfaceProps) {
  const { sessionId, known, inert, onChange, onAsk, onUnsent, onSettled, onFresh, onEscape, ...header } = props
  const chat = useStreamingChat(sessionId, known)
  const composer = useRef<ComposerHandle>(null)
  const [shown, setShown] = useState<Shown | null>(null)
  const [editing, setEditing] = useState<string | null>(null)
  const { busy, send, resend, edit, reply, regenerate, discard, lastTurnId, settled } = chat
  // A form that was opened for one turn must not open for another, least of all while one writes elsewhere.
  if (editing !== null && editing !== lastTurnId) setEditing(null)
  const title = chat.phase === 'missing' ? '' : header.title || chat.title
  const connection = useConnectionNotice(chat.connection)
  // A problem that says the same says more.
  const notice = connection === 'offline' && chat.problem?.code === OFFLINE ? null : connection

  const told = useRef(chat.boundary)
  useEffect(() => {
    const before = told.current
    told.current = chat.boundary
    if (before && before !== chat.boundary) onChange()
  }, [chat.boundary, onChange])

  useEffect(() => {
    if (chat.phase === 'missing') bequeath(sessionId)
  }, [chat.phase, sessionId])

  useEffect(() => {
    document.title = title ? `${title} – ${texts.product}` : texts.product
  }, [title])

  // What was edited may have failed to be sent: it is kept for a reload until it is elsewhere.
  const edited = useRef('')
  const forgetEdit = useCallback(() => keep(editOf(edited.current), ''), [])
  useEffect(() => {
    if (lastTurnId && kept(editOf(lastTurnId))) setEditing(lastTurnId)
  }, [lastTurnId])

  const receiveFocus = useCallback(() => composer.current?.receive(), [])
  const ask = useCallback(
    async (text: string): Promise<boolean> => {
      forgetEdit()
      if (!settled) onAsk(sessionId)
      const accepted = await send(text)
      if (accepted) onSettled(sessionId)
      else onUnsent(sessionId)
      return accepted
    },
    [forgetEdit, send, settled, onAsk, onUnsent, onSettled, sessionId],
  )
  useEffect(() => {
    if (settled) onSettled(sessionId)
  }, [settled, onSettled, sessionId])
  const askAgain = useCallback(async () => {
    receiveFocus()
    if (!(await resend())) return
    forgetEdit()
    onSettled(sessionId)
  }, [receiveFocus, resend, forgetEdit, onSettled, sessionId])
  const answerAgain = useCallback(() => {
    receiveFocus()
    regenerate()
  }, [receiveFocus, regenerate])
  const replyTo = useCallback<typeof reply>(
    (resume, message) => {
      receiveFocus()
      reply(resume, message)
    },
    [receiveFocus, reply],
  )
  const cite = useCallback((turnId: string, number: number) => setShown({ turnId, number }), [])
  const vote = useCallback((turnId: string, value: Vote) => sendFeedback(sessionId, turnId, { value }), [sessionId])
  const startEdit = useCallback(() => setEditing(lastTurnId), [lastTurnId])
  const stopEdit = useCallback(() => {
    setEditing(null)
    composer.current?.focus()
  }, [])
  const saveEdit = useCallback(
    async (turnId: string, text: string) => {
      stopEdit()
      edited.current = turnId
      if (await edit(turnId, text)) forgetEdit()
    },
    [edit, stopEdit, forgetEdit],
  )
  const takeBack = useCallback(() => {
    forgetEdit()
    composer.current?.restore(discard())
  }, [forgetEdit, discard])

  const answer = chat.views.find((view) => view.kind === 'answer' && view.turnId === shown?.turnId)
  const panel = shown && answer?.kind === 'answer' && answer.sources.length > 0 && (
    <SourcePanel sources={answer.sources} text={answer.text} selected={shown.number} onClose={() => setShown(null)} />
  )

  useShortcuts({
    Escape: () => {
      if (onEscape()) return
      if (panel) setShown(null)
      else chat.stop()
    },
    '/': () => composer.current?.focus(),
  })

  return (
    <>
      <main className="chat" inert={inert}>
        <header className="top">
          {header.before}
          <h1 dir="auto">{title || (chat.phase === 'missing' ? texts.conversation.missingTitle : texts.sessions.fresh)}</h1>
          {!busy && chat.views.length > 0 && <Export chat={chat} title={title} />}
          {header.after}
        </header>
        <Conversation
          views={chat.views}
          lastTurnId={lastTurnId}
          editing={editing !== null}
          waiting={chat.asked.length > 0}
          onCite={cite}
          onRegenerate={answerAgain}
          onReply={replyTo}
          onFeedback={vote}
          onStartEdit={startEdit}
          onStopEdit={stopEdit}
          onEdit={saveEdit}
          onResend={askAgain}
          onDiscard={takeBack}
          onJump={receiveFocus}
        >
          <Opening
            chat={chat}
            onAsk={(question) => {
              receiveFocus()
              composer.current?.ask(question)
            }}
            onRetry={() => {
              receiveFocus()
              chat.refresh()
            }}
            onFresh={onFresh}
          />
        </Conversation>
        <div className="bottom">
          {chat.phase !== 'missing' && (
            <>
              {notice && (
                <p className="connection" data-testid="connection" data-state={notice}>
                  {texts.connection[notice]}
                </p>
              )}
              {chat.problem && chat.phase === 'ready' && (
                <p className="connection" data-testid="error" role="alert">
                  {chat.problem.message}
                </p>
              )}
              <Composer
                ref={composer}
                sessionId={sessionId}
                pending={chat.pending}
                unsent={chat.unsent}
                placeholder={chat.asked.length > 0 ? texts.composer.reply : texts.composer.placeholder}
                busy={busy}
                stopping={chat.stopping}
                onSend={ask}
                onStop={chat.stop}
                onEditLast={startEdit}
              />
            </>
          )}
          <p className="scope">{texts.scope}</p>
        </div>
        {panel}
      </main>
      {/* It speaks also while the list lies over the chat. */}
      <Announcer views={chat.views} ready={chat.phase === 'ready'} notice={notice} />
    </>
  )
}

function Export({ chat, title }: { chat: StreamingChat; title: string }) {
  const save = (): void => {
    const heading = title || texts.sessions.untitled
    const text = asMarkdown(heading, chat.snapshot().messages, { ...texts.export, scope: texts.scope })
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([text], { type: 'text/markdown' }))
    link.download = `${heading.match(/[\p{L}\p{N}]+/gu)?.join('-').slice(0, 60) ?? texts.product}.md`
    link.click()
    URL.revokeObjectURL(link.href)
  }
  return (
    <button type="button" className="tool" data-testid="export" title={texts.export.button} onClick={save}>
      <ExportIcon />
      <span className="unseen">{texts.export.button}</span>
    </button>
  )
}
