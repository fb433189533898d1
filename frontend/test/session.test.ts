import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { viewsOf } from '../src/chat/answers'
import { ChatSession, WATCH_AFTER_SECONDS, asked, isBusy } from '../src/chat/session'
import { emptySnapshot } from '../src/chat/reduce'
import { texts } from '../src/texts'
import type { Snapshot, StartRequest } from '../src/types/streaming'
import { FakeEventSource, setHidden, setOnline } from './eventsource'

const SESSION = '11111111-1111-4111-8111-111111111111'
const TURN = '22222222-2222-4222-8222-222222222222'
const STARTED = { turn_id: TURN, message: 'Iron?', request_id: 'r' }

type Answer = Response | Error | (() => Response)

let requests: { method: string; path: string; body: unknown }[]
let answers: Record<string, Answer[]>
let session: ChatSession

const json = (body: object, status = 200): Response =>
  new Response(JSON.stringify(body), { status, headers: { 'Content-Type': 'application/json' } })
const problem = (status: number, code: string): Response =>
  json({ type: 'about:blank', title: code, status, detail: `Because of ${code}.`, code }, status)
const accepted = (after = 0): Response =>
  json({ session_id: SESSION, turn_id: TURN, after, events_url: `/chat/stream/${SESSION}?after=${after}` }, 202)
const snapshotOf = (changes: Partial<Snapshot>): Response => json({ ...emptySnapshot(SESSION), ...changes })

const START = 'POST /chat/stream'
const CANCEL = `POST /chat/stream/${SESSION}/cancel`
const READ = `GET /sessions/${SESSION}`

// The last answer of a list is given for ever.
function answer(method: string, path: string): Promise<Response> {
  const list = answers[`${method} ${path}`] ?? []
  const next = list.length > 1 ? list.shift() : list[0]
  if (next === undefined) return Promise.reject(new Error(`unexpected ${method} ${path}`))
  if (next instanceof Error) return Promise.reject(next)
  return Promise.resolve(typeof next === 'function' ? next() : next.clone())
}

const seconds = (count: number): Promise<unknown> => vi.advanceTimersByTimeAsync(count * 1000)
const frames = (): Promise<unknown> => vi.advanceTimersByTimeAsync(20)
const sent = (key: string): unknown[] => requests.filter((r) => `${r.method} ${r.path}` === key).map((r) => r.body)

function opened(known = false): ChatSession {
  session = new ChatSession(SESSION, known)
  session.open()
  return session
}

beforeEach(() => {
  vi.useFakeTimers()
  vi.stubGlobal('EventSource', FakeEventSource)
  vi.stubGlobal('fetch', (path: string, init: RequestInit) => {
    requests.push({ method: String(init.method), path, body: init.body ? JSON.parse(String(init.body)) : null })
    return answer(String(init.method), path)
  })
  FakeEventSource.opened = []
  requests = []
  answers = {}
})

afterEach(() => {
  session.close()
  setHidden(false)
  setOnline(true)
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

test('a message is shown at once, sent once however often Enter is pressed, and followed to its end', async () => {
  answers[START] = [accepted()]
  const { send, state } = { send: (text: string) => session.send(text), state: () => session.state() }
  opened()
  void send('Iron?')
  expect(await send('Iron?')).toBe(false)
  expect(state().pending?.message).toBe('Iron?')
  await frames()
  expect(sent(START).length).toBe(1)
  expect(sent(START)[0]).toMatchObject({ message: 'Iron?', session_id: SESSION })
  FakeEventSource.last.send(1, 'turn_started', STARTED)
  FakeEventSource.last.send(2, 'token', { content: 'Iron ' })
  FakeEventSource.last.send(3, 'token', { content: 'is' })
  await frames()
  expect(state().pending).toBeNull()
  expect(state().snapshot.turn?.content).toBe('Iron is')
  FakeEventSource.last.send(4, 'done', { turn_id: TURN, message: { id: 'm', content: 'Iron is.', citations: [] } })
  await frames()
  expect(isBusy(state())).toBe(false)
  expect(state().snapshot.messages.map((message) => message.content)).toEqual(['Iron?', 'Iron is.'])
})

test('however many frames come between two paints, the page is told once', async () => {
  answers[START] = [accepted()]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  FakeEventSource.last.ping()
  let told = 0
  session.subscribe(() => (told += 1))
  FakeEventSource.last.send(1, 'turn_started', STARTED)
  for (let seq = 2; seq < 102; seq += 1) FakeEventSource.last.send(seq, 'token', { content: 'x' })
  expect(told).toBe(0)
  await frames()
  expect(told).toBe(1)
  expect(session.state().snapshot.turn?.content.length).toBe(100)
})

test('a start whose answer is lost is repeated under the same request id', async () => {
  answers[START] = [new TypeError('network'), problem(503, 'draining'), accepted()]
  opened()
  const started = session.send('Iron?')
  await seconds(10)
  expect(await started).toBe(true)
  const ids = sent(START).map((body) => (body as StartRequest).request_id)
  expect(ids.length).toBe(3)
  expect(new Set(ids).size).toBe(1)
})

test('a message that cannot be sent stays, says why, and can be sent again as the same request', async () => {
  answers[START] = [new TypeError('network')]
  opened()
  const started = session.send('Iron?')
  await seconds(60)
  expect(await started).toBe(false)
  expect(session.state().pending?.failed?.passing).toBe(true)
  expect(isBusy(session.state())).toBe(false)
  answers[START] = [accepted()]
  const again = session.resend()
  await seconds(1)
  expect(await again).toBe(true)
  expect(new Set(sent(START).map((body) => (body as StartRequest).request_id)).size).toBe(1)
})

test('a message that may be sent in a minute only fails at once and says so', async () => {
  const body = JSON.stringify({ code: 'rate_limited', detail: 'Too many.' })
  answers[START] = [new Response(body, { status: 429, headers: { 'Retry-After': '60' } })]
  opened()
  expect(await session.send('Iron?')).toBe(false)
  expect(sent(START).length).toBe(1)
  expect(session.state().pending?.failed?.message).toBe('Too many. Try again in 60 seconds.')
})

test('a message that was written offline is sent once as the same request when the browser is back', async () => {
  answers[START] = [new TypeError('network'), accepted()]
  opened()
  setOnline(false)
  expect(await session.send('Iron?')).toBe(false)
  expect(session.state().pending?.failed?.code).toBe('offline')
  setOnline(true)
  await frames()
  expect(session.state().pending?.failed).toBeNull()
  const ids = sent(START).map((body) => (body as StartRequest).request_id)
  expect(ids.length).toBe(2)
  expect(new Set(ids).size).toBe(1)
})

test('a message that was written offline is sent also when the browser came back while nobody looked', async () => {
  answers[START] = [new TypeError('network'), accepted()]
  opened()
  setOnline(false)
  expect(await session.send('Iron?')).toBe(false)
  setHidden(true)
  setHidden(false)
  await frames()
  expect(sent(START).length).toBe(1)
  Object.defineProperty(navigator, 'onLine', { configurable: true, get: () => true })
  setHidden(true)
  setHidden(false)
  await frames()
  expect(sent(START).length).toBe(2)
})

test('a message that was written offline is not sent once its chat was left, which its words do not promise', async () => {
  answers[START] = [new TypeError('network'), accepted()]
  opened()
  setOnline(false)
  expect(await session.send('Iron?')).toBe(false)
  expect(session.state().pending?.failed?.message).toContain('if you stay in this chat')
  session.close()
  setOnline(true)
  await seconds(60)
  expect(sent(START).length).toBe(1)
})

test('a graph that has asked gets the next message as the answer, and it cannot be asked anew', async () => {
  const message = { id: 'm', role: 'assistant', content: '', interrupted: [{ id: 'q', value: 'Which city?' }] } as never
  answers[READ] = [snapshotOf({ last_seq: 2, messages: [message] })]
  answers[START] = [accepted(2)]
  opened(true)
  await frames()
  expect(asked(session.state()).map(({ id }) => id)).toEqual(['q'])
  void session.send('Lisbon', { command: { resume: 'Lisbon' } })
  expect(asked(session.state())).toEqual([])
  await frames()
  expect(sent(START)[0]).toMatchObject({ message: 'Lisbon', command: { resume: 'Lisbon' } })
})

test('a refused message is not repeated, and its reason is shown', async () => {
  answers[START] = [problem(422, 'invalid_request')]
  opened()
  expect(await session.send('Iron?')).toBe(false)
  expect(sent(START).length).toBe(1)
  expect(session.state().pending?.failed?.message).toBe('Because of invalid_request.')
})

test('a reload shows the text so far and goes on exactly after it', async () => {
  const turn = { turn_id: TURN, status: 'running' as const, attempt: 1, stages: [], content: 'Iron ', sources: [] }
  answers[READ] = [snapshotOf({ last_seq: 7, turn })]
  opened(true)
  expect(session.state().phase).toBe('loading')
  await frames()
  expect(session.state().snapshot.turn?.content).toBe('Iron ')
  expect(isBusy(session.state())).toBe(true)
  expect(FakeEventSource.last.url).toBe(`/chat/stream/${SESSION}?after=7`)
})

test('another device having asked in between, its turn comes first', async () => {
  answers[START] = [accepted(12)]
  answers[READ] = [snapshotOf({ last_seq: 14, turn: { turn_id: TURN, status: 'running', attempt: 1, stages: [], content: '', sources: [] } })]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  expect(FakeEventSource.last.url).toContain('after=14')
})

test('another device’s turn that cannot be read at first is read when the page is looked at again', async () => {
  const turn = { turn_id: TURN, status: 'running' as const, attempt: 1, stages: [], content: '', sources: [] }
  answers[START] = [accepted(12)]
  answers[READ] = [new TypeError('network'), snapshotOf({ last_seq: 14, turn })]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  expect(session.state().problem?.message).toBe(texts.problem.unreachable)
  setHidden(true)
  setHidden(false)
  await frames()
  expect(session.state().problem).toBeNull()
  expect(FakeEventSource.last.url).toContain('after=14')
})

test('stop names the turn, shows at once, and is over with the terminal event', async () => {
  answers[START] = [accepted()]
  answers[CANCEL] = [json({ turn_id: TURN, status: 'cancelled', seq: 3 })]
  answers[READ] = [snapshotOf({ last_seq: 3 })]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  FakeEventSource.last.send(1, 'turn_started', STARTED)
  FakeEventSource.last.send(2, 'token', { content: 'Iron' })
  await frames()
  void session.stop()
  expect(session.state().stopping).toBe(true)
  await frames()
  expect(sent(CANCEL)).toEqual([{ turn_id: TURN, reason: 'user_initiated' }])
  FakeEventSource.last.send(3, 'cancelled', { turn_id: TURN, reason: 'user_initiated', content: 'Iron' })
  await frames()
  expect(session.state().stopping).toBe(false)
  expect(session.state().snapshot.messages.at(-1)).toMatchObject({ content: 'Iron', status: 'cancelled' })
})

test('stop before the server has answered stops the turn once it is known', async () => {
  let answerStart: (response: Response) => void = () => undefined
  answers[CANCEL] = [json({ turn_id: TURN, status: 'cancelled', seq: 2 })]
  answers[READ] = [snapshotOf({ last_seq: 2 })]
  opened()
  const fetchNow = globalThis.fetch
  vi.stubGlobal('fetch', () => new Promise<Response>((resolve) => (answerStart = resolve)))
  void session.send('Iron?')
  void session.stop()
  vi.stubGlobal('fetch', fetchNow)
  answerStart(accepted())
  await seconds(2)
  expect(sent(CANCEL)).toEqual([{ turn_id: TURN, reason: 'user_initiated' }])
})

test('a stop that is pressed offline says so, and is sent when the browser is back', async () => {
  answers[START] = [accepted()]
  answers[CANCEL] = [new TypeError('network'), json({ turn_id: TURN, status: 'cancelled', seq: 2 })]
  answers[READ] = [snapshotOf({ last_seq: 2 })]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  FakeEventSource.last.send(1, 'turn_started', STARTED)
  await frames()
  setOnline(false)
  await session.stop()
  expect(session.state().problem?.message).toBe(texts.problem.offlineStop)
  FakeEventSource.last.ping()
  expect(session.state()).toMatchObject({ stopping: true, connection: 'live', problem: { message: texts.problem.offlineStop } })
  session.close()
  setOnline(true)
  await seconds(2)
  const stop = { turn_id: TURN, reason: 'user_initiated' }
  expect(sent(CANCEL)).toEqual([stop, stop])
  expect(session.state()).toMatchObject({ stopping: false, problem: null })
})

test('that the server could not be reached is no problem any more once the connection is back', async () => {
  answers[START] = [accepted()]
  answers[CANCEL] = [new TypeError('network')]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  FakeEventSource.last.send(1, 'turn_started', STARTED)
  await frames()
  FakeEventSource.last.breakOff()
  void session.stop()
  await seconds(6)
  expect(session.state()).toMatchObject({ connection: 'lost', problem: { message: texts.problem.unreachable } })
  FakeEventSource.last.ping()
  expect(session.state()).toMatchObject({ connection: 'live', problem: null })
})

test('why a stop failed is of no interest once the answer is over', async () => {
  answers[START] = [accepted()]
  answers[CANCEL] = [problem(400, 'refused')]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  FakeEventSource.last.send(1, 'turn_started', STARTED)
  await frames()
  await session.stop()
  expect(session.state().problem?.message).toBe('Because of refused.')
  FakeEventSource.last.send(2, 'done', { turn_id: TURN, message: { id: 'm', content: 'Iron.', citations: [] } })
  await frames()
  expect(session.state().problem).toBeNull()
})

test('a conversation that is opened offline says so, and opens when the browser is back', async () => {
  answers[READ] = [new TypeError('network'), snapshotOf({ last_seq: 2 })]
  setOnline(false)
  opened(true)
  await frames()
  expect(session.state().problem?.message).toBe(texts.problem.offlineOpen)
  setOnline(true)
  await frames()
  expect(session.state()).toMatchObject({ phase: 'ready', problem: null })
})

test('an open conversation that cannot be read offline does not say that it will open', async () => {
  answers[START] = [accepted()]
  answers[CANCEL] = [json({ turn_id: TURN, status: 'cancelled', seq: 3 })]
  answers[READ] = [new TypeError('network')]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  await session.stop()
  setOnline(false)
  await seconds(2)
  expect(session.state().problem?.message).toBe(texts.connection.offline)
})

test('without a live connection the snapshot confirms the stop', async () => {
  answers[START] = [accepted()]
  answers[CANCEL] = [json({ turn_id: TURN, status: 'cancelled', seq: 3 })]
  answers[READ] = [snapshotOf({ last_seq: 3, turn: null })]
  opened()
  await Promise.all([session.send('Iron?'), frames()])
  FakeEventSource.last.send(1, 'turn_started', STARTED)
  await frames()
  await session.stop()
  expect(session.state().stopping).toBe(true)
  await seconds(2)
  expect(session.state().stopping).toBe(false)
  expect(isBusy(session.state())).toBe(false)
})

test('a session of another person, or deleted, is missing', async () => {
  answers[READ] = [problem(404, 'unknown_session')]
  opened(true)
  await frames()
  expect(session.state().phase).toBe('missing')
})

test('closing the page while it loads opens no connection', async () => {
  const turn = { turn_id: TURN, status: 'running' as const, attempt: 1, stages: [], content: '', sources: [] }
  answers[READ] = [snapshotOf({ last_seq: 7, turn })]
  opened(true)
  session.close()
  await seconds(5)
  expect(FakeEventSource.opened).toEqual([])
})

describe('while nothing runs', () => {
  const ASKED_ELSEWHERE = { turn_id: TURN, message: 'And tea?', request_id: 'another' }
  const END = { turn_id: TURN, message: { id: 'm', content: 'Iron.', citations: [] } }

  async function waiting(): Promise<void> {
    const message = { id: 'm', role: 'assistant', content: 'Iron.', citations: [] } as never
    answers[READ] = [snapshotOf({ last_seq: 2, messages: [message] })]
    opened(true)
    await seconds(WATCH_AFTER_SECONDS + 0.1)
  }

  test('a turn that another device starts is shown to its end, and then the next is waited for', async () => {
    await waiting()
    const first = FakeEventSource.last
    expect(first.url).toBe(`/chat/stream/${SESSION}?after=2&follow=session`)
    first.send(3, 'turn_started', ASKED_ELSEWHERE)
    first.send(4, 'token', { content: 'Iron' })
    await frames()
    expect(isBusy(session.state())).toBe(true)
    expect(session.state().snapshot.turn?.content).toBe('Iron')
    first.send(5, 'done', END)
    await frames()
    expect(session.state().snapshot.messages.slice(1).map((message) => message.content)).toEqual(['And tea?', 'Iron.'])
    expect(FakeEventSource.open).toEqual([])
    await seconds(WATCH_AFTER_SECONDS)
    expect(FakeEventSource.last.url).toBe(`/chat/stream/${SESSION}?after=5&follow=session`)
  })

  test('a lost connection is nobody’s business, until something runs', async () => {
    await waiting()
    FakeEventSource.last.ping()
    FakeEventSource.last.breakOff()
    expect(session.state().connection).toBe('idle')
    await seconds(1)
    FakeEventSource.last.send(3, 'turn_started', ASKED_ELSEWHERE)
    await frames()
    FakeEventSource.last.breakOff()
    expect(session.state().connection).toBe('lost')
  })

  test('a hidden page holds no connection, and catches up by its cursor when it is shown', async () => {
    await waiting()
    setHidden(true)
    expect(FakeEventSource.open).toEqual([])
    setHidden(false)
    expect(FakeEventSource.last.url).toContain('after=2')
    expect(FakeEventSource.open.length).toBe(1)
  })

  test('a question of one’s own frees the connection first', async () => {
    await waiting()
    answers[START] = [() => {
      expect(FakeEventSource.open).toEqual([])
      return accepted(2)
    }]
    await Promise.all([session.send('Iron?'), frames()])
    expect(FakeEventSource.open.map((source) => source.url)).toEqual([`/chat/stream/${SESSION}?after=2`])
  })

  test('a session that was deleted elsewhere is missing', async () => {
    await waiting()
    answers[READ] = [problem(404, 'session_not_found')]
    FakeEventSource.last.refuse()
    await seconds(1)
    expect(session.state().phase).toBe('missing')
    expect(viewsOf(session.state())).toEqual([])
    await seconds(60)
    expect(FakeEventSource.open).toEqual([])
  })

  test('a message that the server had after all is no failure', async () => {
    await waiting()
    answers[START] = [new TypeError('network')]
    const sending = session.send('Iron?')
    await seconds(60)
    expect(await sending).toBe(false)
    const { request_id } = sent(START)[0] as StartRequest
    FakeEventSource.last.send(3, 'turn_started', { ...STARTED, request_id })
    await frames()
    expect(session.state().pending).toBeNull()
    expect(isBusy(session.state())).toBe(true)
  })
})
