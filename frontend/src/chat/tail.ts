// Follows a turn with the browser's EventSource, the running one or the next one that anybody starts, to its end. The
// cursor is the only state that matters: whatever happens to the connection, a new one goes on after it.
import type { StreamEvent } from '../types/streaming'
import { type Follow, eventsUrl } from './api'
import { type Frame, isEnding } from './reduce'

/** Three heartbeats missed: the connection is half open, as after a laptop's sleep. */
export const STALL_SECONDS = 15
const WATCH_SECONDS = 3
export const BACKOFF_SECONDS = [0.5, 1, 2, 4, 8] as const

/** `paused`: the tab is hidden and has let its connection go. `idle`: there is nothing to follow. */
export type Connection = 'idle' | 'connecting' | 'live' | 'lost' | 'offline' | 'paused'

/** What the snapshot says about a session whose connection was refused. Null: there is nothing to follow any more. */
export type Truth = { cursor: number } | null

export interface TailOptions {
  sessionId: string
  cursor: number
  follow: Follow
  onFrame(frame: Frame): void
  onConnection(connection: Connection): void
  /** Reads the snapshot; rejects when it cannot be had at the moment. */
  readTruth(): Promise<Truth>
}

// A record, so that the compiler asks for a listener when an event type is added.
const EVENT_TYPES: Record<StreamEvent['type'], true> = {
  turn_started: true,
  routed: true,
  retrieval_start: true,
  retrieval_complete: true,
  reranking_start: true,
  reranking_complete: true,
  stage_start: true,
  stage_complete: true,
  custom: true,
  generation_start: true,
  token: true,
  reset: true,
  done: true,
  cancelled: true,
  error: true,
}

export function backoffSeconds(failures: number, random = Math.random): number {
  const step = BACKOFF_SECONDS[Math.min(failures, BACKOFF_SECONDS.length) - 1] ?? BACKOFF_SECONDS[0]
  return step * (0.75 + random() / 2)
}

export class Tail {
  readonly follow: Follow
  readonly #options: TailOptions
  readonly #listening = new AbortController()
  #source: EventSource | null = null
  #cursor: number
  #heardAt = 0
  #failures = 0
  #silentSeconds = 0
  #overdue: ReturnType<typeof setTimeout> | undefined
  #retry: ReturnType<typeof setTimeout> | undefined
  #watch: ReturnType<typeof setInterval> | undefined
  #recovering = 0

  constructor(options: TailOptions) {
    this.#options = options
    this.follow = options.follow
    this.#cursor = options.cursor
    this.#followPage()
    this.#watch = setInterval(() => this.#checkStall(), WATCH_SECONDS * 1000)
    if (document.hidden) this.#pause()
    else this.reconnect('connecting')
  }

  close(): void {
    this.#listening.abort()
    clearInterval(this.#watch)
    this.#settle()
    this.#drop()
  }

  /** A new connection from the cursor, now. */
  reconnect(as: 'connecting' | 'lost' = 'lost'): void {
    if (this.#listening.signal.aborted) return
    this.#drop()
    if (as === 'lost') this.#away()
    else this.#options.onConnection(navigator.onLine ? as : 'offline')
    this.#heardAt = performance.now()
    const source = new EventSource(eventsUrl(this.#options.sessionId, this.#cursor, this.follow))
    for (const type of Object.keys(EVENT_TYPES)) {
      source.addEventListener(type, (event) => this.#receive(source, event as MessageEvent<string>))
    }
    source.addEventListener('ping', (event) => this.#pinged(source, event as MessageEvent<string>))
    source.addEventListener('error', (event) => this.#failed(source, event))
    this.#source = source
  }

  #drop(): void {
    clearTimeout(this.#retry)
    this.#recovering += 1
    this.#source?.close()
    this.#source = null
  }

  #pause = (): void => {
    this.#settle()
    this.#drop()
    this.#options.onConnection('paused')
  }

  #heard(source: EventSource): boolean {
    if (source !== this.#source) return false
    this.#heardAt = performance.now()
    this.#settle()
    if (this.follow === 'turn') this.#failures = 0
    this.#options.onConnection('live')
    return true
  }

  #pinged(source: EventSource, { data }: MessageEvent<string>): void {
    const { silent_seconds } = JSON.parse(data) as { silent_seconds?: number }
    if (this.#heard(source) && silent_seconds !== undefined) this.#silentSeconds = silent_seconds
  }

  // Through a gateway that buffers, as Lambda's does, nothing of a response arrives before its end: only when that is
  // long overdue has the connection been lost.
  #away(): void {
    const { onConnection } = this.#options
    if (!navigator.onLine) return onConnection('offline')
    if (this.#silentSeconds === 0) return onConnection('lost')
    if (this.#overdue !== undefined) return
    onConnection('connecting')
    this.#overdue = setTimeout(() => onConnection('lost'), 2 * this.#silentSeconds * 1000)
  }

  #settle(): void {
    clearTimeout(this.#overdue)
    this.#overdue = undefined
  }

  // The event type `error` of the contract and EventSource's own `error` arrive under one name; only ours has data.
  #receive(source: EventSource, message: MessageEvent<string>): void {
    if (typeof message.data !== 'string' || !this.#heard(source)) return
    const seq = Number(message.lastEventId)
    const event = { ...JSON.parse(message.data), type: message.type } as StreamEvent
    if (seq <= this.#cursor) return
    // Pruning may make ids jump, but never on to a token: this would be a wrong prefix.
    if (event.type === 'token' && seq !== this.#cursor + 1) return void this.#recover()
    this.#cursor = seq
    this.#failures = 0
    if (isEnding(event)) this.close()
    this.#options.onFrame({ seq, event })
    if (isEnding(event)) this.#options.onConnection('idle')
  }

  // CONNECTING: the browser comes back by itself with Last-Event-ID, as after the ordinary end of a window. It would do so
  // twice a second for ever, which is too often where nothing may happen for hours.
  // CLOSED: refused (204, 404, 5xx). EventSource does not say which, so the snapshot is asked.
  #failed(source: EventSource, event: Event): void {
    if (source !== this.#source || 'data' in event) return
    if (source.readyState === EventSource.CLOSED) {
      this.#options.onConnection(navigator.onLine ? 'lost' : 'offline')
      void this.#recover()
    } else {
      this.#away()
      if (this.follow === 'session') this.#comeBackLater()
    }
  }

  #comeBackLater(): void {
    this.#drop()
    this.#failures += 1
    this.#retry = setTimeout(() => this.reconnect(), backoffSeconds(this.#failures) * 1000)
  }

  async #recover(): Promise<void> {
    this.#drop()
    const recovery = this.#recovering
    this.#failures += 1
    const truth = await this.#options.readTruth().catch(() => 'unknown' as const)
    if (recovery !== this.#recovering) return
    if (truth === null) return this.#finish()
    if (truth !== 'unknown') this.#cursor = truth.cursor
    this.#options.onConnection(navigator.onLine ? 'lost' : 'offline')
    const again = truth === 'unknown' ? () => void this.#recover() : () => this.reconnect()
    this.#retry = setTimeout(again, backoffSeconds(this.#failures) * 1000)
  }

  #finish(): void {
    this.close()
    this.#options.onConnection('idle')
  }

  #checkStall(): void {
    if (this.#source && performance.now() - this.#heardAt > STALL_SECONDS * 1000) this.reconnect()
  }

  #followPage(): void {
    const { signal } = this.#listening
    const show = (): void => (document.hidden ? this.#pause() : this.reconnect('connecting'))
    document.addEventListener('visibilitychange', show, { signal })
    window.addEventListener('pagehide', this.#pause, { signal })
    window.addEventListener('pageshow', (event) => event.persisted && this.reconnect('connecting'), { signal })
    window.addEventListener('online', () => this.reconnect(), { signal })
    window.addEventListener('offline', () => this.#options.onConnection('offline'), { signal })
  }
}
