import { useEffect, useMemo, useState, useSyncExternalStore } from 'react'
import { type View, viewsOf } from '../chat/answers'
import type { RequestFailed } from '../chat/problem'
import { ChatSession, type SessionState, asked, isBusy, unsent } from '../chat/session'
import type { Connection } from '../chat/tail'
import type { Interrupt, Resume, Snapshot } from '../types/streaming'

export interface StreamingChat extends Actions {
  views: View[]
  title: string
  phase: SessionState['phase']
  connection: Connection
  problem: RequestFailed | null
  /** The server has this session. */
  settled: boolean
  /** A message is on its way, or could not be sent; the log does not have it yet. */
  pending: boolean
  /** The message that could not be sent, unless the conversation has it. */
  unsent: string
  /** A message is on its way, or a turn is queued or running. */
  busy: boolean
  stopping: boolean
  /** Questions of another graph to the person, which wait for an answer. */
  asked: readonly Interrupt[]
  /** Changes when a turn begins and when it ends; empty until the session is loaded. */
  boundary: string
  /** The last turn, when it has ended: it may be asked anew. */
  lastTurnId: string | null
}

/** They stay the same for as long as the session is open. All do nothing where they make no sense. */
interface Actions {
  /** True once the server has the message. Where the graph has asked one question, it is the answer to it. */
  send(message: string): Promise<boolean>
  /** Answers what the graph has asked; the conversation shows `message`. */
  reply(resume: unknown, message: string): void
  /** Asks the last turn anew, in other words. */
  edit(turnId: string, message: string): Promise<boolean>
  /** Asks the last turn anew, in the same words. */
  regenerate(): void
  stop(): void
  /** Sends what failed once more; true once the server has it. */
  resend(): Promise<boolean>
  /** Takes back a message that could not be sent, and returns its text. */
  discard(): string
  refresh(): void
  snapshot(): Snapshot
}

/** One session, live: loads it when it is known, follows its running turn, and sends what is asked. */
export function useStreamingChat(sessionId: string, known: boolean): StreamingChat {
  const [session] = useState(() => new ChatSession(sessionId, known))
  useEffect(() => {
    session.open()
    return () => session.close()
  }, [session])
  const state = useSyncExternalStore(session.subscribe, session.state)
  const actions = useMemo(() => actionsOf(session), [session])
  const views = useMemo(() => viewsOf(state), [state])

  return {
    ...actions,
    views,
    title: state.snapshot.title,
    phase: state.phase,
    connection: state.connection,
    problem: state.problem,
    settled: state.snapshot.last_seq > 0 || state.pending?.turn_id != null,
    pending: state.pending !== null,
    unsent: unsent(state),
    busy: isBusy(state),
    stopping: state.stopping,
    asked: asked(state),
    boundary: state.phase === 'ready' ? boundaryOf(state.snapshot) : '',
    lastTurnId: lastQuestion(state)?.turn_id ?? null,
  }
}

const boundaryOf = ({ messages, turn }: Snapshot): string => `${messages.at(-1)?.turn_id}, ${turn?.turn_id}`

function actionsOf(session: ChatSession): Actions {
  return {
    send: (message) => session.send(message, { command: answering(session.state(), message) }),
    reply: (resume, message) => void session.send(message, { command: { resume } }),
    edit: (turnId, message) => session.send(message, { replaces: turnId }),
    regenerate: () => {
      const question = lastQuestion(session.state())
      if (question) void session.send(question.content, { replaces: question.turn_id })
    },
    stop: () => {
      if (isBusy(session.state())) void session.stop()
    },
    resend: () => session.resend(),
    discard: () => {
      const text = session.state().pending?.message ?? ''
      session.discard()
      return text
    },
    refresh: () => void session.refresh(),
    snapshot: () => session.state().snapshot,
  }
}

function answering(state: SessionState, resume: string): Resume | null {
  const [question, ...others] = asked(state)
  return question?.id && others.length === 0 ? { resume } : null
}

// What answered a graph's question cannot be asked anew: the graph has gone on.
function lastQuestion({ snapshot, pending }: SessionState): Snapshot['messages'][number] | undefined {
  if (pending || snapshot.turn) return undefined
  const { messages } = snapshot
  const last = messages.findLastIndex((message) => message.role === 'user')
  return messages[last - 1]?.interrupted ? undefined : messages[last]
}
