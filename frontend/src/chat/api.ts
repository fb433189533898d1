// The HTTP contract of DESIGN.md, one function a call. All throw `RequestFailed`.
import type {
  Cancellation,
  CancellationRequest,
  Feedback,
  SessionPage,
  Snapshot,
  StartRequest,
  Started,
  TitleChange,
} from '../types/streaming'
import { readProblem, unreachable } from './problem'

const TIMEOUT_SECONDS = 20

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

async function request(method: Method, path: string, body?: object, headers?: HeadersInit): Promise<Response> {
  const init: RequestInit = { method, headers: { Accept: 'application/json', ...headers } }
  if (body) {
    init.body = JSON.stringify(body)
    init.headers = { ...init.headers, 'Content-Type': 'application/json' }
  }
  const response = await fetch(path, { ...init, signal: AbortSignal.timeout(TIMEOUT_SECONDS * 1000) }).catch(() => {
    throw unreachable()
  })
  if (!response.ok) throw await readProblem(response)
  return response
}

// A body that is cut off, or a proxy's page with status 200, is no answer either.
async function json<T>(response: Promise<Response>): Promise<T> {
  const answered = await response
  return answered.json().catch(() => {
    throw unreachable()
  }) as Promise<T>
}

const session = (sessionId: string): string => `/sessions/${encodeURIComponent(sessionId)}`
const stream = (sessionId: string): string => `/chat/stream/${encodeURIComponent(sessionId)}`

/** `turn`: to the end of the running one. `session`: of whatever turn comes next, however long that takes. */
export type Follow = 'turn' | 'session'

export const eventsUrl = (sessionId: string, after: number, follow: Follow): string =>
  `${stream(sessionId)}?after=${after}${follow === 'session' ? '&follow=session' : ''}`

/** Starts a turn; the same `request_id` is the same turn, so that it may be sent again after a lost answer. */
export const startTurn = (start: StartRequest): Promise<Started> =>
  json(request('POST', '/chat/stream', start, { Prefer: 'respond-async' }))

export const cancelTurn = (sessionId: string, cancel: CancellationRequest): Promise<Cancellation> =>
  json(request('POST', `${stream(sessionId)}/cancel`, cancel))

export const readSnapshot = (sessionId: string): Promise<Snapshot> => json(request('GET', session(sessionId)))

export function listSessions(query: string, before: string | null): Promise<SessionPage> {
  const parameters = new URLSearchParams()
  if (query) parameters.set('query', query)
  if (before) parameters.set('before', before)
  return json(request('GET', parameters.size ? `/sessions?${parameters}` : '/sessions'))
}

export async function renameSession(sessionId: string, change: TitleChange): Promise<void> {
  await request('PATCH', session(sessionId), change)
}

export async function deleteSession(sessionId: string): Promise<void> {
  await request('DELETE', session(sessionId))
}

export async function sendFeedback(sessionId: string, turnId: string, feedback: Feedback): Promise<void> {
  await request('PUT', `${session(sessionId)}/turns/${encodeURIComponent(turnId)}/feedback`, feedback)
}
