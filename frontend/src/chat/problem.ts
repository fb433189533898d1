import { texts } from '../texts'
import type { Problem } from '../types/streaming'

/** What went wrong with a request, in words for a person. `status` 0: no answer came at all. */
export class RequestFailed extends Error {
  readonly status: number
  readonly code: string
  readonly retryAfterSeconds: number | null

  constructor(status: number, code: string, detail: string, retryAfterSeconds: number | null = null) {
    super(detail)
    this.status = status
    this.code = code
    this.retryAfterSeconds = retryAfterSeconds
  }

  /** The same request may succeed in a moment: the way to the server, or the server, was away. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500
  }
}

export const OFFLINE = 'offline'

// A browser may think itself offline and still reach a server on the same machine: it is asked only after a failure.
export const unreachable = (): RequestFailed =>
  navigator.onLine
    ? new RequestFailed(0, 'unreachable', texts.problem.unreachable)
    : new RequestFailed(0, OFFLINE, texts.problem.offline)

/** `offline` says what becomes of this request, when that is why it failed. */
export function asRequestFailed(reason: unknown, offline?: string): RequestFailed {
  const failed = reason instanceof RequestFailed ? reason : unreachable()
  return offline && failed.code === OFFLINE ? new RequestFailed(0, OFFLINE, offline) : failed
}

const SOON_SECONDS = 10

export async function readProblem(response: Response): Promise<RequestFailed> {
  const problem = await problemOf(response)
  const detail = problem?.detail || problem?.title || texts.problem.status(response.status)
  const wait = Number(response.headers.get('Retry-After') ?? Number.NaN)
  const seconds = Number.isFinite(wait) && wait >= 0 ? wait : null
  const said = seconds !== null && seconds > SOON_SECONDS ? `${detail} ${texts.problem.wait(seconds)}` : detail
  return new RequestFailed(response.status, problem?.code ?? 'unknown', said, seconds)
}

// A proxy in between answers with HTML, or with nothing.
async function problemOf(response: Response): Promise<Partial<Problem> | null> {
  try {
    return (await response.json()) as Partial<Problem>
  } catch {
    return null
  }
}
