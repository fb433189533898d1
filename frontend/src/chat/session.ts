// One open session: its snapshot, the turn being sent, and the tail that keeps the snapshot growing.
import type { Interrupt, Resume, Snapshot } from '../types/streaming'
import { type Follow, cancelTurn, readSnapshot, startTurn } from './api'
import { mintId } from './identifiers'
import { OFFLINE, type RequestFailed, asRequestFailed } from './problem'
import { type Frame, emptySnapshot, reduce } from './reduce'
import { retried } from './retry'
import { texts } from '../texts'
import { type Connection, Tail, type Truth } from './tail'

const CONFIRM_STOP_SECONDS = 1
/** After an answer its connection is free for the next question, before the page waits for what others ask. */
export const WATCH_AFTER_SECONDS = 2

/** A message on its way: shown at once, kept until the log has it. */
export interface Pending {
  request_id: string
  message: string
  replaces: string | null
  /** Answers what another graph asked. */
  command: Resume | null
  turn_id: string | null
  failed: RequestFailed | null
}

export interface SessionState {
  snapshot: Snapshot
  /** `missing`: no such session, or another person's. */
  phase: 'loading' | 'ready' | 'missing' | 'unreachable'
  pending: Pending | null
  stopping: boolean
  problem: RequestFailed | null
  connection: Connection
}

export const isBusy = ({ snapshot, pending }: SessionState): boolean =>
  snapshot.turn != null || (pending !== null && pending.failed === null)

const NOTHING: readonly Interrupt[] = []

/** What another graph asked at the end of the last turn, and waits for. */
export function asked({ snapshot, pending }: SessionState): readonly Interrupt[] {
  return (!pending && !snapshot.turn && snapshot.messages.at(-1)?.interrupted) || NOTHING
}

/** The words that only this page has, because they could not be sent; asked anew, the conversation has them too. */
export function unsent({ snapshot, pending }: SessionState): string {
  if (!pending?.failed || snapshot.messages.some(({ content }) => content === pending.message)) return ''
  return pending.message
}

export class ChatSession {
  readonly id: string
  #state: SessionState
  #listeners = new Set<() => void>()
  #tail: Tail | null = null
  #frames: Frame[] = []
  #painting = false
  #opened: AbortController | null = null
  #watch: ReturnType<typeof setTimeout> | undefined

  constructor(id: string, known: boolean) {
    this.id = id
    this.#state = {
      snapshot: emptySnapshot(id),
      phase: known ? 'loading' : 'ready',
      pending: null,
      stopping: false,
      problem: null,
      connection: 'idle',
    }
  }

  readonly state = (): SessionState => this.#state

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  open(): void {
    this.#opened = new AbortController()
    const { signal } = this.#opened
    document.addEventListener('visibilitychange', () => document.hidden || this.#tryAgain(), { signal })
    window.addEventListener('online', () => this.#tryAgain(), { signal })
    if (this.#state.phase === 'loading') void this.refresh()
  }

  close(): void {
    this.#opened?.abort()
    this.#letGo()
  }

  /** Reads the snapshot and follows its running turn, or waits for the next one. */
  async refresh(): Promise<void> {
    try {
      const { turn, last_seq } = await this.#read()
      if (turn && this.#tail?.follow !== 'turn') this.#follow('turn', last_seq)
      else this.#watchSoon()
    } catch (reason) {
      const open = this.#state.phase === 'ready'
      this.#failedToRead(asRequestFailed(reason, open ? texts.connection.offline : texts.problem.offlineOpen))
    }
  }

  /** True once the server has the message. `replaces` is the last turn, to answer it anew. */
  async send(message: string, options: Partial<Pick<Pending, 'replaces' | 'command'>> = {}): Promise<boolean> {
    if (isBusy(this.#state)) return false
    const { replaces = null, command = null } = options
    return this.#start({ request_id: mintId(), message, replaces, command, turn_id: null, failed: null })
  }

  /** Sends what failed once more, under the same request id: if the server had it after all, it is the same turn. */
  async resend(): Promise<boolean> {
    const { pending } = this.#state
    return pending?.failed ? this.#start({ ...pending, failed: null }) : false
  }

  discard(): void {
    this.#set({ pending: null, problem: null })
  }

  async stop(): Promise<void> {
    const { snapshot, pending } = this.#state
    this.#set({ stopping: true })
    const turnId = snapshot.turn?.turn_id ?? pending?.turn_id
    if (turnId) await this.#cancel(turnId)
  }

  async #start(pending: Pending): Promise<boolean> {
    this.#letGo()
    this.#set({ pending, problem: null })
    const { request_id, message, replaces, command } = pending
    try {
      const started = await retried(() => startTurn({ session_id: this.id, request_id, message, replaces, command }))
      this.#set({ pending: { ...pending, turn_id: started.turn_id } })
      // Another device has asked in between: its turn comes first.
      if (started.after === this.#state.snapshot.last_seq) this.#follow('turn', started.after)
      else await this.refresh()
      if (this.#state.stopping) await this.#cancel(started.turn_id)
      return true
    } catch (reason) {
      const failed = asRequestFailed(reason, texts.problem.offlineSend)
      this.#set({ pending: { ...pending, failed }, stopping: false })
      if (failed.code === 'session_busy') await this.refresh()
      else this.#watchSoon()
      return false
    }
  }

  async #cancel(turnId: string): Promise<void> {
    this.#set({ problem: null })
    try {
      const { seq } = await retried(() => cancelTurn(this.id, { turn_id: turnId, reason: 'user_initiated' }))
      // The tail brings the end; without a live one the snapshot does.
      setTimeout(() => this.#state.snapshot.last_seq < seq && void this.refresh(), CONFIRM_STOP_SECONDS * 1000)
    } catch (reason) {
      const failed = asRequestFailed(reason, texts.problem.offlineStop)
      // Also when one has gone elsewhere meanwhile.
      if (failed.code === OFFLINE) window.addEventListener('online', () => void this.#cancel(turnId), { once: true })
      this.#set({ stopping: failed.code === OFFLINE, problem: failed.status === 409 ? null : failed })
      if (failed.status === 409) await this.refresh()
    }
  }

  #offline(): boolean {
    return this.#state.pending?.failed?.code === OFFLINE
  }

  #tryAgain(): void {
    const { phase, problem, stopping } = this.#state
    if (phase === 'unreachable' || (problem?.passing && !stopping)) void this.refresh()
    if (navigator.onLine && this.#offline()) void this.resend()
  }

  async #read(): Promise<Snapshot> {
    const read = await readSnapshot(this.id)
    this.#fold()
    const { snapshot } = this.#state
    const newest = read.last_seq >= snapshot.last_seq ? read : { ...snapshot, title: read.title }
    this.#set({ snapshot: newest, phase: 'ready', problem: null })
    return newest
  }

  #failedToRead(failed: RequestFailed): void {
    if (failed.status === 404) this.#lose()
    else if (this.#state.phase === 'loading') this.#set({ phase: 'unreachable', problem: failed })
    else this.#set({ problem: failed })
  }

  // What was erased elsewhere is not shown here any longer.
  #lose(): void {
    this.#letGo()
    this.#set({ phase: 'missing', snapshot: emptySnapshot(this.id), pending: null, problem: null, connection: 'idle' })
  }

  #follow(follow: Follow, cursor: number): void {
    this.#letGo()
    if (this.#opened?.signal.aborted) return
    this.#tail = new Tail({
      sessionId: this.id,
      cursor,
      follow,
      onFrame: (frame) => this.#queue(frame),
      onConnection: (connection) => this.#connected(connection, follow),
      readTruth: () => this.#readTruth(follow),
    })
  }

  #letGo(): void {
    clearTimeout(this.#watch)
    this.#tail?.close()
    this.#tail = null
  }

  // Another device, or another tab, may ask next.
  #watchSoon(): void {
    clearTimeout(this.#watch)
    this.#watch = setTimeout(() => this.#watchNow(), WATCH_AFTER_SECONDS * 1000)
  }

  #watchNow(): void {
    const { phase, snapshot } = this.#state
    if (!this.#tail && !isBusy(this.#state) && phase === 'ready' && snapshot.last_seq > 0) {
      this.#follow('session', snapshot.last_seq)
    }
  }

  #connected(reported: Connection, follow: Follow): void {
    if (reported === 'idle') {
      this.#tail = null
      this.#watchSoon()
    }
    // While nothing is being answered, nobody needs to know how the connection is.
    const connection = follow === 'turn' || this.#state.snapshot.turn ? reported : 'idle'
    const { connection: before, problem, stopping } = this.#state
    if (connection === before) return
    // The server is reached again. A stop that waits for the browser says so until it is sent.
    const disproved = connection === 'live' && problem?.status === 0 && !stopping
    this.#set({ connection, problem: disproved ? null : problem })
  }

  async #readTruth(follow: Follow): Promise<Truth> {
    try {
      const { turn, last_seq } = await this.#read()
      return turn || follow === 'session' ? { cursor: last_seq } : null
    } catch (reason) {
      const failed = asRequestFailed(reason)
      if (failed.status !== 404) throw failed
      this.#lose()
      return null
    }
  }

  // However many frames arrive between two paints, the page changes once.
  #queue(frame: Frame): void {
    this.#frames.push(frame)
    if (this.#painting) return
    this.#painting = true
    requestAnimationFrame(() => this.#fold())
  }

  #fold(): void {
    const frames = this.#frames
    this.#painting = false
    this.#frames = []
    if (frames.length === 0) return
    const { snapshot, pending } = this.#state
    this.#set({ snapshot: frames.reduce(reduce, snapshot), pending: pending && recognised(pending, frames) })
  }

  #set(changes: Partial<SessionState>): void {
    const before = this.#state
    this.#state = settled({ ...before, ...changes })
    // What went wrong with stopping a turn is of no interest when it is over.
    if (isBusy(before) && !isBusy(this.#state) && !changes.problem) this.#state = { ...this.#state, problem: null }
    for (const listener of this.#listeners) listener()
  }
}

// The server had the message after all, and only its answer was lost on the way.
function recognised(pending: Pending, frames: readonly Frame[]): Pending {
  const starts = frames.map(({ event }) => event).filter((event) => event.type === 'turn_started')
  const own = starts.find((event) => event.request_id === pending.request_id)
  return own ? { ...pending, turn_id: own.turn_id } : pending
}

// The log has the pending message, or the turn that was being stopped is over.
function settled(state: SessionState): SessionState {
  const { pending, snapshot } = state
  const arrived = pending?.turn_id != null && snapshot.messages.some((m) => m.turn_id === pending.turn_id)
  const next = arrived ? { ...state, pending: null } : state
  return next.stopping && !isBusy(next) ? { ...next, stopping: false } : next
}
