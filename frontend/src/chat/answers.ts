// What the conversation shows, from the session's state. A running turn and its finished message are one answer with one
// id, so that nothing is drawn anew when the turn ends.
import type { Interrupt, Message, Source, StageState, StreamingSession } from '../types/streaming'
import type { Pending, SessionState } from './session'

export interface QuestionView {
  kind: 'question'
  id: string
  turnId: string | null
  text: string
  askedAt: Date | null
  pending: Pending | null
}

export interface AnswerView {
  kind: 'answer'
  id: string
  turnId: string
  status: 'running' | Message['status']
  text: string
  sources: Source[]
  cited: ReadonlySet<number>
  agent: Message['agent']
  stages: StageState[]
  /** The answer lost its worker and is being written again, and no word of the new attempt is there yet. */
  restarting: boolean
  abstained: boolean
  durationMilliseconds: number | null
  /** When it ended; null while it is written. */
  endedAt: Date | null
  feedback: Message['feedback']
  error: { message: string; retryable: boolean } | null
  /** What another graph asked before it goes on. */
  asked: readonly Interrupt[]
}

export type View = QuestionView | AnswerView

export function viewsOf({ snapshot, pending }: SessionState): View[] {
  const kept = snapshot.messages.filter((message) => !pending?.replaces || message.turn_id !== pending.replaces)
  const views: View[] = kept.map(viewOf)
  if (snapshot.turn) views.push(runningView(snapshot.turn))
  if (pending) views.push(pendingView(pending))
  return views
}

// A message never changes, so neither does its view; only the answer being written is drawn again.
const drawn = new WeakMap<Message, View>()

function viewOf(message: Message): View {
  const view = drawn.get(message) ?? (message.role === 'user' ? questionView(message) : answerView(message))
  drawn.set(message, view)
  return view
}

function questionView(message: Message): QuestionView {
  const { id, turn_id, content, timestamp } = message
  return { kind: 'question', id, turnId: turn_id, text: content, askedAt: new Date(timestamp), pending: null }
}

function pendingView(pending: Pending): QuestionView {
  const id = pending.turn_id ? `${pending.turn_id}:user` : pending.request_id
  return { kind: 'question', id, turnId: null, text: pending.message, askedAt: null, pending }
}

function answerView(message: Message): AnswerView {
  return {
    kind: 'answer',
    id: message.id,
    turnId: message.turn_id,
    status: message.status,
    text: message.content,
    sources: message.sources,
    cited: citedBy(message),
    agent: message.agent,
    stages: message.stages,
    restarting: false,
    abstained: message.abstained,
    durationMilliseconds: message.duration_ms ?? null,
    endedAt: new Date(message.timestamp),
    feedback: message.feedback,
    error: message.error ?? null,
    asked: message.interrupted ?? [],
  }
}

// Only a finished answer lists what it cites; a stopped one is read.
function citedBy(message: Message): ReadonlySet<number> {
  if (message.status === 'complete') return new Set(message.citations.map((citation) => citation.number))
  return new Set(Array.from(message.content.matchAll(/\d+(?=[\d\s,]*\])/g), Number))
}

function runningView(turn: StreamingSession): AnswerView {
  return {
    kind: 'answer',
    id: `${turn.turn_id}:assistant`,
    turnId: turn.turn_id,
    status: 'running',
    text: turn.content,
    sources: turn.sources,
    cited: new Set(),
    agent: turn.agent,
    stages: turn.stages,
    restarting: turn.attempt > 1 && turn.content === '',
    abstained: false,
    durationMilliseconds: null,
    endedAt: null,
    feedback: 0,
    error: null,
    asked: [],
  }
}

/** The conversation as a Markdown document. */
export function asMarkdown(title: string, messages: readonly Message[], words: ExportWords): string {
  return `${[`# ${title}`, `_${words.scope}_`, ...messages.map((message) => section(message, words))].join('\n\n')}\n`
}

interface ExportWords {
  scope: string
  you: string
  answer: string
  sources: string
  cancelled: string
  error: string
}

function section(message: Message, words: ExportWords): string {
  if (message.role === 'user') return `## ${words.you}\n\n${message.content}`
  // What was read and found wanting is no source of the answer.
  const read = message.abstained ? [] : message.sources
  const sources = read.map((s, index) => `${index + 1}. ${s.title}${s.url ? ` <${s.url}>` : ''}`)
  const listed = sources.length > 0 ? `\n\n### ${words.sources}\n\n${sources.join('\n')}` : ''
  const end = message.status === 'complete' ? '' : `_${words[message.status]}_`
  return `${[`## ${words.answer}`, message.content, end].filter(Boolean).join('\n\n')}${listed}`
}
