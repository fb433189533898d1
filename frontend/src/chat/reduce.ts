// The fold: a session's events → its snapshot. Pure, and the same fold as graph/eventlog/snapshot.py.
import type { Message, Snapshot, StageState, StreamEvent, StreamingSession } from '../types/streaming'

/** A committed event as it came off the wire. `seq` counts 1, 2, 3 … within the session. */
export interface Frame {
  seq: number
  event: StreamEvent
}

export type Ending = 'done' | 'cancelled' | 'error'

const ENDINGS: ReadonlySet<string> = new Set<Ending>(['done', 'cancelled', 'error'])

export const isEnding = (event: StreamEvent): boolean => ENDINGS.has(event.type)

export function emptySnapshot(sessionId: string): Snapshot {
  return { session_id: sessionId, title: '', last_seq: 0, messages: [], turn: null }
}

/** Adds one event; an event that is already in (seq ≤ last_seq) changes nothing. */
export function reduce(snapshot: Snapshot, { seq, event }: Frame): Snapshot {
  if (seq <= snapshot.last_seq) return snapshot
  const next = { ...snapshot, last_seq: seq }
  if (event.type === 'turn_started') return start(next, event)
  return next.turn ? advance(next, { ...next.turn, status: 'running' }, event) : next
}

function start(snapshot: Snapshot, event: Extract<StreamEvent, { type: 'turn_started' }>): Snapshot {
  const kept = event.replaces ? snapshot.messages.filter((m) => m.turn_id !== event.replaces) : snapshot.messages
  const question = message(event.turn_id, 'user', event.message, event.timestamp)
  return { ...snapshot, messages: [...kept, question], turn: newTurn(event.turn_id) }
}

function newTurn(turnId: string): StreamingSession {
  return {
    turn_id: turnId,
    status: 'queued',
    attempt: 1,
    agent: null,
    stage: null,
    stages: [],
    content: '',
    sources: [],
  }
}

function message(turnId: string, role: Message['role'], content: string, timestamp: string): Message {
  return {
    id: `${turnId}:${role}`,
    role,
    content,
    status: 'complete',
    citations: [],
    sources: [],
    turn_id: turnId,
    timestamp,
    agent: null,
    stages: [],
    abstained: false,
    duration_ms: null,
    error: null,
    feedback: 0,
    interrupted: null,
  }
}

type Advancing = Exclude<StreamEvent, { type: 'turn_started' }>

function advance(snapshot: Snapshot, turn: StreamingSession, event: Advancing): Snapshot {
  const going = (changes: Partial<StreamingSession>): Snapshot => ({ ...snapshot, turn: { ...turn, ...changes } })
  switch (event.type) {
    case 'routed':
      return going({ agent: event.agent })
    case 'retrieval_start':
      return going(begin(turn, event, { name: 'retrieval' }))
    case 'retrieval_complete': {
      const { passages, degraded = null } = event
      return going(finish(turn, 'retrieval', event.duration_ms, { passages, degraded }))
    }
    case 'reranking_start':
      return going(begin(turn, event, { name: 'reranking' }))
    case 'reranking_complete': {
      const { sources, degraded = null } = event
      return going({ sources, ...finish(turn, 'reranking', event.duration_ms, { sources: sources.length, degraded }) })
    }
    case 'stage_start':
      return going(begin(turn, event, { name: event.stage }))
    case 'stage_complete':
      return going(finish(turn, event.stage, event.duration_ms, {}))
    case 'generation_start':
      return going(begin(turn, event, { name: 'generation', model: event.model }))
    case 'custom':
      return going({})
    case 'token':
      return going({ content: turn.content + event.content })
    case 'reset': {
      const stages = turn.stages.filter((stage) => stage.state === 'done')
      return going({ attempt: event.attempt, content: '', stage: null, stages })
    }
    case 'done': {
      const { content, citations } = event.message
      const { abstained, duration_ms, interrupted = null } = event
      return end(snapshot, turn, event, { content, citations, abstained, duration_ms, interrupted })
    }
    case 'cancelled':
      return end(snapshot, turn, event, { content: event.content, status: 'cancelled' })
    case 'error':
      return end(snapshot, turn, event, { content: event.content, status: 'error', error: event })
    default:
      return unknown(event)
  }
}

// A type that this page does not know was written by a newer server. The compiler proves that there is none today.
function unknown(event: never): never {
  throw new TypeError(`unknown event ${JSON.stringify(event)}`)
}

type Found = Partial<Omit<StageState, 'name' | 'state' | 'started_at'>>

const UNKNOWN = { started_at: '', duration_ms: null, passages: null, sources: null, degraded: null, model: null }

function begin(
  turn: StreamingSession,
  { timestamp }: Advancing,
  { name, ...found }: Found & { name: string },
): Partial<StreamingSession> {
  const others = turn.stages.filter((stage) => stage.name !== name)
  const begun: StageState = { ...UNKNOWN, name, state: 'active', started_at: timestamp, ...found }
  return { stage: name, stages: [...others, begun] }
}

function finish(turn: StreamingSession, name: string, duration_ms: number, found: Found): Partial<StreamingSession> {
  const begun = turn.stages.find((stage) => stage.name === name)
  const done: StageState = { ...UNKNOWN, ...begun, ...found, name, state: 'done', duration_ms }
  if (!begun) return { stages: [...turn.stages, done] }
  return { stages: turn.stages.map((stage) => (stage === begun ? done : stage)) }
}

function end(snapshot: Snapshot, turn: StreamingSession, { timestamp }: Advancing, result: Partial<Message>): Snapshot {
  const { sources, agent } = turn
  const stages = turn.stages.map((stage) => closed(stage, result.status ?? 'complete', timestamp))
  const answer = { ...message(turn.turn_id, 'assistant', '', timestamp), sources, agent, stages, ...result }
  return { ...snapshot, messages: [...snapshot.messages, answer], turn: null }
}

// A stage that was under way when its turn ended, as the writing always is. Two workers' clocks may differ.
function closed(stage: StageState, status: Message['status'], timestamp: string): StageState {
  if (stage.state === 'done') return stage
  const duration_ms = Math.max(0, Date.parse(timestamp) - Date.parse(stage.started_at))
  return { ...stage, state: status === 'complete' ? 'done' : 'stopped', duration_ms }
}
