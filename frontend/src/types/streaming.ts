// Generated from the Pydantic models by `npm run types`. Do not edit.

export type StreamEvent =
  | TurnStarted
  | Routed
  | RetrievalStart
  | RetrievalComplete
  | RerankingStart
  | RerankingComplete
  | StageStart
  | StageComplete
  | Custom
  | GenerationStart
  | Token
  | Reset
  | Done
  | Cancelled
  | Error

/**
 * The finished answer. `content` is Markdown.
 */
export interface AnswerMessage {
  id: string
  content: string
  citations: Citation[]
}
/**
 * One `[number]` of an answer and the source that it names.
 */
export interface Citation {
  number: number
  source_id: string
}
/**
 * How the turn ended, also when it had ended before; `seq` is its terminal event.
 */
export interface Cancellation {
  turn_id: string
  status: 'queued' | 'running' | 'done' | 'cancelled' | 'error'
  seq: number
}
/**
 * With `turn_id` a cancel can never hit a later turn.
 */
export interface CancellationRequest {
  turn_id?: string | null
  reason?: 'user_initiated'
}
export interface Cancelled {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'cancelled'
  reason: 'user_initiated' | 'timeout' | 'error'
  /**
   * the partial answer, kept
   */
  content: string
}
export interface Custom {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'custom'
  value: unknown
}
export interface Done {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'done'
  message: AnswerMessage
  abstained: boolean
  usage: Usage
  duration_ms: number
  /**
   * another graph waits for these answers
   */
  interrupted?: Interrupt[] | null
}
export interface Usage {
  input_tokens: number
  output_tokens: number
}
/**
 * What a graph asked before it goes on. A breakpoint asks nothing: its id is empty.
 */
export interface Interrupt {
  id: string
  value?: unknown
}
export interface Error {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'error'
  code: string
  /**
   * for a person
   */
  message: string
  retryable: boolean
  /**
   * the partial answer, kept
   */
  content: string
}
export interface Feedback {
  value: -1 | 0 | 1
  comment?: string | null
}
export interface GenerationStart {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'generation_start'
  model: string
}
/**
 * One side's words in a conversation. `content` is Markdown; a stopped or failed answer keeps its partial text.
 *
 * `timestamp` is when it was asked, or when the answer ended.
 */
export interface Message {
  id: string
  role: 'user' | 'assistant'
  content: string
  status: 'complete' | 'cancelled' | 'error'
  citations: Citation[]
  sources: Source[]
  turn_id: string
  timestamp: string
  agent?: ('rag_agent' | 'emotional_support' | 'safety') | null
  stages: StageState[]
  abstained: boolean
  duration_ms?: number | null
  error?: Error | null
  feedback: -1 | 0 | 1
  interrupted?: Interrupt[] | null
}
/**
 * A passage that an answer may cite. `[n]` in the answer is the n-th source, counted from 1.
 */
export interface Source {
  id: string
  title: string
  url: string
  score: number
  text: string
}
/**
 * `name` is retrieval, reranking, generation or another graph's node; `stopped` when its turn ended before it.
 */
export interface StageState {
  name: string
  state: 'active' | 'done' | 'stopped'
  started_at: string
  duration_ms?: number | null
  passages?: number | null
  sources?: number | null
  degraded?: string | null
  model?: string | null
}
/**
 * application/problem+json (RFC 9457) with a stable `code`.
 */
export interface Problem {
  type: string
  title: string
  status: number
  detail: string
  code: string
}
export interface RerankingComplete {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'reranking_complete'
  sources: Source[]
  duration_ms: number
  degraded?: string | null
}
export interface RerankingStart {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'reranking_start'
}
/**
 * Forget this turn's tokens. Finished stages and their sources stay; the stage under way starts again.
 */
export interface Reset {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'reset'
  attempt: number
  reason: string
}
/**
 * What answers a graph's interrupt. Of several interrupts each needs its answer, by id: `{id: value}`.
 */
export interface Resume {
  resume: unknown
}
export interface RetrievalComplete {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'retrieval_complete'
  /**
   * how many passages were found
   */
  passages: number
  duration_ms: number
  /**
   * what was left out, in words for a person
   */
  degraded?: string | null
}
export interface RetrievalStart {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'retrieval_start'
}
export interface Routed {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'routed'
  agent: 'rag_agent' | 'emotional_support' | 'safety'
}
export interface SessionItem {
  session_id: string
  title: string
  created_at: string
  updated_at: string
  running: boolean
}
/**
 * Newest first; `next` goes into `?before=` for the page after, null at the end.
 */
export interface SessionPage {
  sessions: SessionItem[]
  next: string | null
}
/**
 * A session's log folded up to `last_seq`; tailing after `last_seq` goes on exactly there.
 */
export interface Snapshot {
  session_id: string
  title: string
  last_seq: number
  messages: Message[]
  turn?: StreamingSession | null
}
/**
 * The running turn: what a page needs to go on as if it had watched from the start.
 */
export interface StreamingSession {
  turn_id: string
  status: 'queued' | 'running'
  attempt: number
  agent?: ('rag_agent' | 'emotional_support' | 'safety') | null
  stage?: string | null
  stages: StageState[]
  content: string
  sources: Source[]
}
export interface StageComplete {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'stage_complete'
  stage: string
  duration_ms: number
}
export interface StageStart {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'stage_start'
  stage: string
}
/**
 * `session_id` and `request_id` are the client's to mint; the same `request_id` is one turn, never a second.
 */
export interface StartRequest {
  message: string
  session_id?: string | null
  request_id?: string | null
  /**
   * the session's last turn, to regenerate or edit it
   */
  replaces?: string | null
  /**
   * answers what interrupted the turn before; the message may then be left out
   */
  command?: Resume | null
  /**
   * of another graph's input, all but the message
   */
  input?: {
    [k: string]: unknown
  } | null
}
export interface Started {
  session_id: string
  turn_id: string
  /**
   * the seq before the turn's first event: tail from here
   */
  after: number
  events_url: string
}
export interface TurnStarted {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  turn_id: string
  type: 'turn_started'
  message: string
  request_id: string
  /**
   * the turn that this one stands in for: leave it out
   */
  replaces?: string | null
  /**
   * answers what interrupted the turn before
   */
  command?: Resume | null
  /**
   * of another graph's input, all but the message
   */
  input?: {
    [k: string]: unknown
  } | null
}
export interface Token {
  /**
   * ISO 8601 in UTC with milliseconds, stamped once, before the commit
   */
  timestamp: string
  type: 'token'
  /**
   * one or more tokens that were committed together
   */
  content: string
}
export interface TitleChange {
  title: string
}
