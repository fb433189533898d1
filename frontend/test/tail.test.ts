import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Follow } from '../src/chat/api'
import type { Frame } from '../src/chat/reduce'
import { BACKOFF_SECONDS, type Connection, STALL_SECONDS, Tail, type Truth, backoffSeconds } from '../src/chat/tail'
import { FakeEventSource, setHidden, setOnline } from './eventsource'

const SESSION = '11111111-1111-4111-8111-111111111111'
const token = (content: string): object => ({ content, timestamp: '2026-11-23T18:00:00.123Z' })
const END = { turn_id: 't', message: { id: 'm', content: 'Iron', citations: [] }, abstained: false, duration_ms: 1 }

let frames: Frame[]
let connections: Connection[]
let truth: () => Promise<Truth>
let tail: Tail

function openTail(cursor = 0, follow: Follow = 'turn'): void {
  tail = new Tail({
    sessionId: SESSION,
    cursor,
    follow,
    onFrame: (frame) => frames.push(frame),
    onConnection: (connection) => connections.push(connection),
    readTruth: () => truth(),
  })
}

const seqs = (): number[] => frames.map((frame) => frame.seq)
const seconds = (count: number): Promise<unknown> => vi.advanceTimersByTimeAsync(count * 1000)

beforeEach(() => {
  vi.useFakeTimers()
  vi.stubGlobal('EventSource', FakeEventSource)
  FakeEventSource.opened = []
  frames = []
  connections = []
  truth = () => Promise.resolve(null)
})

afterEach(() => {
  tail.close()
  setHidden(false)
  setOnline(true)
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

test('opens after the cursor and hands on each frame once, in order', () => {
  openTail(4)
  expect(FakeEventSource.last.url).toBe(`/chat/stream/${SESSION}?after=4`)
  FakeEventSource.last.send(5, 'token', token('Iron '))
  FakeEventSource.last.send(5, 'token', token('Iron '))
  FakeEventSource.last.send(6, 'token', token('is'))
  expect(frames.map(({ seq, event }) => [seq, event.type, event.type === 'token' && event.content])).toEqual([
    [5, 'token', 'Iron '],
    [6, 'token', 'is'],
  ])
})

describe('at the end of the turn', () => {
  test.each(['done', 'cancelled', 'error'] as const)('%s closes the connection at once', (type) => {
    openTail()
    FakeEventSource.last.send(1, type, END)
    expect(FakeEventSource.open).toEqual([])
    expect(connections.at(-1)).toBe('idle')
    expect(seqs()).toEqual([1])
  })

  test('nothing opens a connection any more', async () => {
    openTail()
    FakeEventSource.last.send(1, 'done', END)
    setHidden(true)
    setHidden(false)
    window.dispatchEvent(new Event('online'))
    await seconds(60)
    expect(FakeEventSource.opened.length).toBe(1)
  })
})

describe('when the connection breaks', () => {
  test('the browser comes back by itself; nothing is asked and nothing is opened', async () => {
    truth = vi.fn(() => Promise.resolve(null))
    openTail()
    FakeEventSource.last.send(1, 'token', token('a'))
    FakeEventSource.last.breakOff()
    expect(connections.at(-1)).toBe('lost')
    FakeEventSource.last.ping()
    FakeEventSource.last.send(2, 'token', token('b'))
    expect(connections.at(-1)).toBe('live')
    expect(seqs()).toEqual([1, 2])
    expect(truth).not.toHaveBeenCalled()
    expect(FakeEventSource.opened.length).toBe(1)
  })

  test('through a gateway that buffers it is lost only when the next response is long overdue', async () => {
    openTail()
    FakeEventSource.last.ping({ silent_seconds: 3 })
    FakeEventSource.last.breakOff()
    await seconds(5)
    FakeEventSource.last.ping({ silent_seconds: 3 })
    FakeEventSource.last.breakOff()
    await seconds(5)
    expect(connections).not.toContain('lost')
    FakeEventSource.last.breakOff()
    await seconds(1.1)
    expect(connections.at(-1)).toBe('lost')
  })

  test('a refusal asks the snapshot, and goes on after what it holds', async () => {
    truth = () => Promise.resolve({ cursor: 7 })
    openTail()
    FakeEventSource.last.refuse()
    await seconds(1)
    expect(FakeEventSource.last.url).toContain('after=7')
  })

  test('a refusal ends it when nothing runs any more', async () => {
    openTail()
    FakeEventSource.last.refuse()
    await seconds(60)
    expect(connections.at(-1)).toBe('idle')
    expect(FakeEventSource.opened.length).toBe(1)
  })

  test('a server that is away is asked again, ever more slowly, until it is back', async () => {
    let asked = 0
    truth = () => {
      asked += 1
      return asked < 6 ? Promise.reject(new Error('502')) : Promise.resolve({ cursor: 3 })
    }
    openTail()
    FakeEventSource.last.refuse()
    await seconds(1)
    expect(asked).toBe(2)
    await seconds(60)
    expect(asked).toBe(6)
    expect(FakeEventSource.last.url).toContain('after=3')
    expect(FakeEventSource.open.length).toBe(1)
  })

  test('silence for longer than heartbeats allow opens a new one from the cursor', async () => {
    openTail()
    FakeEventSource.last.send(1, 'token', token('a'))
    await seconds(STALL_SECONDS + 4)
    expect(FakeEventSource.opened.length).toBe(2)
    expect(FakeEventSource.last.url).toContain('after=1')
    expect(FakeEventSource.open.length).toBe(1)
  })

  test('heartbeats keep it', async () => {
    openTail()
    for (let beat = 0; beat < 12; beat += 1) {
      FakeEventSource.last.ping()
      await seconds(5)
    }
    expect(FakeEventSource.opened.length).toBe(1)
  })

  test('frames of a connection that was replaced are not heard', async () => {
    openTail()
    const first = FakeEventSource.last
    window.dispatchEvent(new Event('online'))
    first.closedByPage = false
    first.send(1, 'token', token('a'))
    expect(frames).toEqual([])
  })
})

describe('a jump in the ids', () => {
  test('on to the end of a pruned turn is right', () => {
    openTail(3)
    FakeEventSource.last.send(90, 'done', END)
    expect(seqs()).toEqual([90])
  })

  test('on to a token would be a wrong prefix: the snapshot is asked', async () => {
    truth = () => Promise.resolve({ cursor: 9 })
    openTail(3)
    FakeEventSource.last.send(9, 'token', token('x'))
    expect(frames).toEqual([])
    await seconds(1)
    expect(FakeEventSource.last.url).toContain('after=9')
  })
})

describe('the page', () => {
  test('hidden lets the connection go, and comes back by the cursor', () => {
    openTail()
    FakeEventSource.last.send(1, 'token', token('a'))
    setHidden(true)
    expect(FakeEventSource.open).toEqual([])
    expect(connections.at(-1)).toBe('paused')
    setHidden(false)
    expect(FakeEventSource.last.url).toContain('after=1')
    expect(FakeEventSource.open.length).toBe(1)
  })

  test('put away for later lets the connection go, and brought back opens one after the cursor', () => {
    openTail()
    FakeEventSource.last.send(1, 'token', token('a'))
    window.dispatchEvent(Object.assign(new Event('pagehide'), { persisted: true }))
    expect(FakeEventSource.open).toEqual([])
    expect(connections.at(-1)).toBe('paused')
    window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }))
    expect(FakeEventSource.open.map((source) => source.url)).toEqual([`/chat/stream/${SESSION}?after=1`])
  })

  test('opened hidden waits until it is shown', () => {
    setHidden(true)
    openTail()
    expect(FakeEventSource.opened).toEqual([])
    setHidden(false)
    expect(FakeEventSource.opened.length).toBe(1)
  })

  test('offline is told apart, and coming online connects at once', () => {
    openTail()
    setOnline(false)
    FakeEventSource.last.breakOff()
    expect(connections.at(-1)).toBe('offline')
    setOnline(true)
    expect(FakeEventSource.opened.length).toBe(2)
  })

  test('coming online while the snapshot is being asked makes its answer old', async () => {
    truth = () => new Promise((answer) => setTimeout(() => answer(null), 1000))
    openTail()
    FakeEventSource.last.refuse()
    setOnline(true)
    await seconds(5)
    expect(FakeEventSource.open.length).toBe(1)
    expect(connections).not.toContain('idle')
  })

  test('closing it while the snapshot is being asked opens nothing', async () => {
    truth = () => new Promise((answer) => setTimeout(() => answer({ cursor: 1 }), 1000))
    openTail()
    FakeEventSource.last.refuse()
    tail.close()
    await seconds(60)
    expect(FakeEventSource.opened.length).toBe(1)
  })
})

describe('waiting for a turn that anybody may start', () => {
  test('asks for whatever comes, and ends with the end of the turn that came', () => {
    openTail(4, 'session')
    expect(FakeEventSource.last.url).toBe(`/chat/stream/${SESSION}?after=4&follow=session`)
    FakeEventSource.last.ping()
    FakeEventSource.last.send(5, 'token', token('a'))
    FakeEventSource.last.send(6, 'done', END)
    expect(seqs()).toEqual([5, 6])
    expect(FakeEventSource.open).toEqual([])
    expect(connections.at(-1)).toBe('idle')
  })

  test('comes back ever more slowly while windows end with nothing in them', async () => {
    openTail(4, 'session')
    const waits = await windows(6)
    expect(waits.every((wait, index) => wait >= (waits[index - 1] ?? 0))).toBe(true)
    expect(waits.at(-1)).toBeGreaterThan(5)
    expect(FakeEventSource.last.url).toContain('after=4')
  })

  test('comes back soon after a window with something in it', async () => {
    openTail(4, 'session')
    await windows(5)
    FakeEventSource.last.send(5, 'token', token('a'))
    expect(await windows(1)).toEqual([expect.closeTo(0.5, 0)])
    expect(FakeEventSource.last.url).toContain('after=5')
  })

  async function windows(count: number): Promise<number[]> {
    vi.spyOn(Math, 'random').mockReturnValue(0.5)
    const waits: number[] = []
    for (let window = 0; window < count; window += 1) {
      const opened = FakeEventSource.opened.length
      FakeEventSource.last.ping()
      FakeEventSource.last.breakOff()
      const from = performance.now()
      while (FakeEventSource.opened.length === opened) await seconds(0.1)
      waits.push((performance.now() - from) / 1000)
    }
    return waits
  }
})

test('the wait grows to its last step, with a quarter of chance either way', () => {
  const middle = (failures: number): number => backoffSeconds(failures, () => 0.5)
  expect([1, 2, 3, 4, 5, 99].map(middle)).toEqual([...BACKOFF_SECONDS, BACKOFF_SECONDS.at(-1)])
  expect(backoffSeconds(1, () => 0)).toBe(0.375)
  expect(backoffSeconds(1, () => 1)).toBe(0.625)
})
