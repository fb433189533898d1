import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { act, cleanup, fireEvent, render, renderHook, screen } from '@testing-library/react'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type AnswerView, type QuestionView, viewsOf } from '../src/chat/answers'
import { lex } from '../src/chat/markdown'
import { emptySnapshot, reduce } from '../src/chat/reduce'
import type { SessionState } from '../src/chat/session'
import type { Connection } from '../src/chat/tail'
import { Announcer } from '../src/components/Announcer'
import { Answer } from '../src/components/Answer'
import { ChatInterface } from '../src/components/ChatInterface'
import { Composer, type ComposerHandle } from '../src/components/Composer'
import { Question } from '../src/components/Question'
import { SessionList } from '../src/components/SessionList'
import { SHOW_AFTER_SECONDS, useConnectionNotice } from '../src/hooks/useConnectionNotice'
import { useRoute } from '../src/hooks/useRoute'
import { useSessions } from '../src/hooks/useSessions'
import { texts } from '../src/texts'
import type { StreamEvent } from '../src/types/streaming'
import { FakeEventSource, setOnline } from './eventsource'

vi.mock('../src/chat/markdown', async (original) => {
  const real = await original<Record<'lex', typeof lex>>()
  return { ...real, lex: vi.fn(real.lex) }
})

const SESSION = '11111111-1111-4111-8111-111111111111'
const TURN = '22222222-2222-4222-8222-222222222222'
const timestamp = '2026-11-23T18:00:00.123Z'
const of = { turn_id: TURN, timestamp }
const started: StreamEvent = { type: 'turn_started', message: 'Iron?', request_id: 'r', ...of }
const routed: StreamEvent = { type: 'routed', agent: 'rag_agent', ...of }
const token: StreamEvent = { type: 'token', content: 'Iron ', timestamp }
const generating: StreamEvent = { type: 'generation_start', model: 'm', ...of }
const cancelled: StreamEvent = { type: 'cancelled', reason: 'user_initiated', content: 'Iron ', ...of }
const source = { id: 's', title: 'Iron', url: '', score: 1, text: 'Iron.' }
const failed: StreamEvent = {
  type: 'error',
  code: 'model_unavailable',
  message: 'The model is away.',
  retryable: true,
  content: '',
  ...of,
}

function viewsAfter(...events: StreamEvent[]): ReturnType<typeof viewsOf> {
  const frames = events.map((event, index) => ({ seq: index + 1, event }))
  const snapshot = frames.reduce(reduce, emptySnapshot('s'))
  return viewsOf({ snapshot, pending: null } as SessionState)
}

beforeEach(() => {
  vi.useFakeTimers()
  sessionStorage.clear()
})

afterEach(() => {
  cleanup()
  vi.useRealTimers()
})

describe('the connection notice', () => {
  const seconds = (count: number): void => act(() => void vi.advanceTimersByTime(count * 1000))
  const notice = (initial: Connection) =>
    renderHook((connection: Connection) => useConnectionNotice(connection), { initialProps: initial })

  test('says nothing about a loss that is over within a second, as the end of a window is', () => {
    const { result, rerender } = notice('live')
    rerender('lost')
    seconds(SHOW_AFTER_SECONDS - 0.1)
    rerender('live')
    seconds(10)
    expect(result.current).toBeNull()
  })

  test('says that the connection is lost, then that the page has caught up, then nothing', () => {
    const { result, rerender } = notice('live')
    rerender('lost')
    seconds(SHOW_AFTER_SECONDS)
    expect(result.current).toBe('lost')
    rerender('live')
    expect(result.current).toBe('caughtUp')
    seconds(10)
    expect(result.current).toBeNull()
  })

  test('tells offline from lost', () => {
    const { result, rerender } = notice('lost')
    rerender('offline')
    seconds(SHOW_AFTER_SECONDS)
    expect(result.current).toBe('offline')
  })
})

describe('a new chat', () => {
  const opened = () => renderHook(() => useRoute()).result

  test('is another one while its first message is on its way, and after the server has it', () => {
    const route = opened()
    const first = route.current.sessionId
    act(() => route.current.openFresh())
    expect(route.current.sessionId).toBe(first)
    act(() => route.current.spend(first))
    act(() => route.current.openFresh())
    const second = route.current.sessionId
    expect(second).not.toBe(first)
    act(() => route.current.settle(first))
    act(() => route.current.openFresh())
    expect(route.current.sessionId).toBe(second)
  })

  test('whose first message could not be sent is opened again, with what was written in it', () => {
    const route = opened()
    const first = route.current.sessionId
    act(() => route.current.spend(first))
    act(() => route.current.regain(first))
    act(() => route.current.openFresh())
    const second = route.current.sessionId
    expect(second).not.toBe(first)
    act(() => route.current.openFresh())
    expect(route.current.sessionId).toBe(first)
    act(() => route.current.open('11111111-1111-4111-8111-111111111111'))
    act(() => route.current.openFresh())
    expect(route.current.sessionId).toBe(first)
  })
})

describe('the announcer', () => {
  const said = (): string => screen.getByTestId('announcer').textContent ?? ''

  test('speaks at boundaries and never reads tokens', () => {
    const events: StreamEvent[] = [started, routed, generating, token, token, cancelled]
    const { rerender } = render(<Announcer views={[]} ready notice={null} />)
    const spoken = events.map((_, index) => {
      rerender(<Announcer views={viewsAfter(...events.slice(0, index + 1))} ready notice={null} />)
      return said()
    })
    const { sent, stopped } = texts.announce
    const writing = texts.announce.stage('generation')
    expect(spoken).toEqual([sent, sent, writing, writing, writing, stopped])
  })

  test('does not announce what was there when the page opened', () => {
    const { rerender } = render(<Announcer views={[]} ready={false} notice={null} />)
    rerender(<Announcer views={viewsAfter(started, cancelled)} ready notice={null} />)
    expect(said()).toBe('')
  })

  test('says that the connection is lost', () => {
    render(<Announcer views={[]} ready notice="lost" />)
    expect(said()).toBe(texts.connection.lost)
  })
})

describe('the composer', () => {
  const field = (): HTMLTextAreaElement => screen.getByTestId('composer')
  const ref = { current: null as ComposerHandle | null }
  const onSend = vi.fn(() => Promise.resolve(true))
  const composer = ({ busy = false, pending = false, unsent = '', onStop = (): void => undefined } = {}) => (
    <Composer
      sessionId="s"
      pending={pending}
      unsent={unsent}
      placeholder=""
      busy={busy}
      stopping={false}
      ref={ref}
      onSend={onSend}
      onStop={onStop}
      onEditLast={() => undefined}
    />
  )
  const write = (text: string): void => void fireEvent.change(field(), { target: { value: text } })
  const enter = (options = {}): Promise<void> =>
    act(async () => void fireEvent.keyDown(field(), { key: 'Enter', ...options }))

  beforeEach(() => onSend.mockClear())

  test('Enter sends the trimmed text and empties the field', async () => {
    render(composer())
    write('  Iron? \n')
    await enter()
    expect(onSend).toHaveBeenCalledExactlyOnceWith('Iron?')
    expect(field().value).toBe('')
  })

  test('Shift+Enter, an input method, an empty field and a running answer do not send', async () => {
    const { rerender } = render(composer())
    await enter()
    write('Iron?')
    await enter({ shiftKey: true })
    await enter({ isComposing: true })
    await enter({ keyCode: 229 })
    rerender(composer({ busy: true }))
    await enter()
    expect(onSend).not.toHaveBeenCalled()
    expect(field().value).toBe('Iron?')
  })

  test('a text over the limit says by how much, and is not sent; a pictograph is one character', async () => {
    render(composer())
    write('🩺'.repeat(4000))
    await enter()
    expect(onSend).toHaveBeenCalledOnce()
    write('🩺'.repeat(4001))
    await enter()
    expect(onSend).toHaveBeenCalledOnce()
    expect(screen.getByText(texts.composer.tooLong(1))).toBeTruthy()
  })

  test('a draft survives a reload until the server has the message', async () => {
    let accept: (accepted: boolean) => void = () => undefined
    onSend.mockImplementationOnce(() => new Promise((resolve) => (accept = resolve)))
    const { unmount } = render(composer())
    write('Iron?')
    await enter()
    unmount()
    render(composer())
    expect(field().value).toBe('Iron?')
    await act(async () => accept(true))
    cleanup()
    render(composer())
    expect(field().value).toBe('')
  })

  test('what is written while a message is on its way is kept beside it over a reload', async () => {
    onSend.mockImplementationOnce(() => new Promise(() => undefined))
    render(composer())
    write('Iron?')
    await enter()
    write('And tea?')
    cleanup()
    render(composer())
    expect(field().value).toBe('Iron?\nAnd tea?')
  })

  test('a message that was sent at the second try leaves no draft behind', async () => {
    onSend.mockImplementationOnce(() => Promise.resolve(false))
    const { rerender } = render(composer())
    write('Iron?')
    await enter()
    rerender(composer({ pending: true }))
    rerender(composer())
    cleanup()
    render(composer())
    expect(field().value).toBe('')
  })

  test('a message that could not be sent comes back into the field when another is sent', async () => {
    onSend.mockResolvedValueOnce(false).mockResolvedValueOnce(false)
    const { rerender } = render(composer())
    write('Iron?')
    await enter()
    rerender(composer({ pending: true, unsent: 'Iron?' }))
    write('And tea?')
    await enter()
    expect(onSend).toHaveBeenLastCalledWith('And tea?')
    expect(field().value).toBe('Iron?')
    cleanup()
    render(composer())
    expect(field().value).toBe('And tea?\nIron?')
  })

  test('an example that could not be sent waits in the field, beside what was written, for whoever has left', async () => {
    onSend.mockResolvedValueOnce(false)
    render(composer())
    write('And tea?')
    await act(async () => ref.current?.ask('Iron?'))
    expect(onSend).toHaveBeenCalledExactlyOnceWith('Iron?')
    expect(field().value).toBe('And tea?')
    cleanup()
    render(composer())
    expect(field().value).toBe('Iron?\nAnd tea?')
  })

  test('a double click sends, and does not stop', async () => {
    const onStop = vi.fn()
    const { rerender } = render(composer({ onStop }))
    write('Iron?')
    await act(async () => void fireEvent.click(screen.getByTestId('send'), { detail: 1 }))
    rerender(composer({ onStop, busy: true }))
    fireEvent.click(screen.getByTestId('stop'), { detail: 2 })
    fireEvent.click(screen.getByTestId('stop'), { detail: 1 })
    expect(onStop).not.toHaveBeenCalled()
  })

  test('a message that was taken back stands before what has been written since', () => {
    render(composer())
    write('and tea?')
    act(() => ref.current?.restore('Iron?'))
    expect(field().value).toBe('Iron?\nand tea?')
  })
})

describe('the last question', () => {
  const onEdit = vi.fn()
  const question = viewsAfter(started)[0] as QuestionView
  const editing = () =>
    render(
      <Question
        question={question}
        last
        editing
        onStartEdit={() => undefined}
        onStopEdit={() => undefined}
        onEdit={onEdit}
        onResend={() => undefined}
        onDiscard={() => undefined}
      />,
    )
  const field = (): HTMLTextAreaElement => screen.getByLabelText(texts.question.editLabel)

  test('that is half edited, or was edited and not sent, is so after a reload too, until it is kept as it was', () => {
    editing()
    fireEvent.change(field(), { target: { value: 'Zinc?' } })
    cleanup()
    editing()
    expect(field().value).toBe('Zinc?')
    fireEvent.click(screen.getByText(texts.question.save))
    expect(onEdit).toHaveBeenCalledExactlyOnceWith(TURN, 'Zinc?')
    cleanup()
    editing()
    expect(field().value).toBe('Zinc?')
    fireEvent.click(screen.getByText(texts.question.cancel))
    cleanup()
    editing()
    expect(field().value).toBe('Iron?')
  })
})

describe('the list of conversations', () => {
  const json = (body: object, status = 200): Response => new Response(JSON.stringify(body), { status })
  const item = { session_id: SESSION, title: 'Iron', running: false }
  function List({ current = '' }) {
    const searchField = { current: null }
    const nothing = (): void => undefined
    return (
      <SessionList
        sessions={useSessions()}
        current={current}
        searchField={searchField}
        onOpen={nothing}
        onFresh={nothing}
        onDeleted={nothing}
      />
    )
  }
  const soon = (): Promise<unknown> => act(() => vi.advanceTimersByTimeAsync(200))
  afterEach(() => vi.unstubAllGlobals())

  test('that could not be read is read when the browser is back', async () => {
    vi.stubGlobal('fetch', () => Promise.reject(new TypeError('network')))
    render(<List />)
    await soon()
    expect(screen.getByText(texts.sessions.failed)).toBeTruthy()
    vi.stubGlobal('fetch', () => Promise.resolve(json({ sessions: [item], next: null })))
    act(() => void window.dispatchEvent(new Event('online')))
    await soon()
    expect(screen.getByTestId('session-item').textContent).toContain('Iron')
    expect(screen.queryByText(texts.sessions.failed)).toBeNull()
  })

  describe('says that a title could not be stored', () => {
    const stored = vi.fn(() => Promise.resolve(json({}, 503)))
    const rename = (title: string): void => {
      fireEvent.click(screen.getByRole('button', { name: texts.sessions.rename('Iron') }))
      fireEvent.change(screen.getByLabelText(texts.sessions.renameLabel), { target: { value: title } })
      fireEvent.submit(screen.getByLabelText(texts.sessions.renameLabel))
    }
    const said = (): string | null | undefined => screen.queryByRole('alert')?.textContent

    async function unrenamed(): Promise<(current: string) => void> {
      vi.stubGlobal('fetch', (_: string, { method }: RequestInit) =>
        method === 'PATCH' ? stored() : Promise.resolve(json({ sessions: [item], next: null })),
      )
      const { rerender } = render(<List />)
      await soon()
      rename('Ferritin')
      await soon()
      expect(said()).toBe(texts.sessions.unrenamed('Ferritin'))
      return (current) => rerender(<List current={current} />)
    }

    test('until that is dismissed', async () => {
      await unrenamed()
      fireEvent.click(screen.getByText(texts.sessions.dismiss))
      expect(said()).toBeUndefined()
      expect(document.activeElement).toBe(screen.getByTestId('new-chat'))
    })

    test('until another title is sent', async () => {
      await unrenamed()
      stored.mockReturnValueOnce(new Promise(() => undefined))
      rename('Ferritin in blood')
      expect(said()).toBeUndefined()
    })

    test('until another chat is opened', async () => {
      const open = await unrenamed()
      open(SESSION)
      expect(said()).toBeUndefined()
    })
  })
})

describe('a chat', () => {
  const json = (body: object): Promise<Response> => Promise.resolve(new Response(JSON.stringify(body)))
  const seconds = (count: number): Promise<unknown> => act(() => vi.advanceTimersByTimeAsync(count * 1000))
  const nothing = (): void => undefined
  const saidOf = (testId: string): string | null | undefined => screen.queryByTestId(testId)?.textContent
  afterEach(() => {
    setOnline(true)
    vi.unstubAllGlobals()
  })

  test('is a silent log beside a voice, and says how its connection is beside what else is wrong', async () => {
    vi.stubGlobal('EventSource', FakeEventSource)
    vi.stubGlobal('fetch', (path: string) =>
      path === '/chat/stream' ? json({ turn_id: TURN, after: 0 }) : Promise.reject(new TypeError('network')),
    )
    render(
      <ChatInterface
        {...{ sessionId: SESSION, known: false, title: '', inert: false, before: null, after: null }}
        {...{ onChange: nothing, onAsk: nothing, onUnsent: nothing, onSettled: nothing, onFresh: nothing }}
        onEscape={() => false}
      />,
    )
    fireEvent.change(screen.getByTestId('composer'), { target: { value: 'Iron?' } })
    fireEvent.submit(screen.getByTestId('composer'))
    await seconds(0.1)
    FakeEventSource.last.send(1, 'turn_started', started)
    await seconds(0.1)

    // What is written there is not read aloud: the announcer speaks at boundaries.
    expect(screen.getByRole('log', { name: texts.conversation.label }).getAttribute('aria-live')).toBe('off')
    expect(saidOf('announcer')).toBe(texts.announce.sent)

    act(() => FakeEventSource.last.breakOff())
    fireEvent.click(screen.getByTestId('stop'))
    await seconds(6)
    expect(saidOf('connection')).toBe(texts.connection.lost)
    expect(saidOf('error')).toBe(texts.problem.unreachable)
    act(() => FakeEventSource.last.ping())
    expect(saidOf('connection')).toBe(texts.connection.caughtUp)
    expect(saidOf('error')).toBeUndefined()

    act(() => setOnline(false))
    fireEvent.click(screen.getByTestId('stop'))
    await seconds(2)
    expect(saidOf('error')).toBe(texts.problem.offlineStop)
    expect(saidOf('connection')).toBeUndefined()
  })
})

describe('an answer', () => {
  const actions = { onCite: vi.fn(), onRegenerate: vi.fn(), onReply: vi.fn(), onFeedback: vi.fn(() => Promise.resolve()) }
  const show = (...events: StreamEvent[]) =>
    render(<Answer answer={viewsAfter(...events).at(-1) as AnswerView} last waiting {...actions} />)

  test('shows each stage with its state', () => {
    show(started, routed, { type: 'retrieval_start', ...of })
    const states = ['retrieval', 'reranking', 'generation'].map((name) => screen.getByTestId(`stage-${name}`).dataset.state)
    expect(states).toEqual(['active', 'pending', 'pending'])
  })

  test('is read anew in its last block only, while it is written', () => {
    const found: StreamEvent = { type: 'reranking_complete', sources: [source], duration_ms: 40, ...of }
    const words = ['Iron. [1]\n\n', 'Zinc', ' too.'].map((content): StreamEvent => ({ type: 'token', content, timestamp }))
    const view = (count: number) => viewsAfter(started, routed, found, ...words.slice(0, count)).at(-1) as AnswerView
    const { rerender } = render(<Answer answer={view(2)} last waiting {...actions} />)
    vi.mocked(lex).mockClear()
    rerender(<Answer answer={view(3)} last waiting {...actions} />)
    expect(vi.mocked(lex).mock.calls).toEqual([['Zinc too.']])
  })

  test('that was stopped keeps its text and says so', () => {
    show(started, routed, token, { ...cancelled, content: 'Iron **deficiency' })
    expect(screen.getByTestId('answer').dataset.status).toBe('cancelled')
    expect(screen.getByTestId('answer-text').textContent).toBe('Iron deficiency')
    expect(screen.getByText(texts.answer.stopped)).toBeTruthy()
  })

  test('that has ended sums up what was searched and chosen, and unfolds each stage', () => {
    const found: StreamEvent[] = [
      { type: 'retrieval_start', ...of },
      { type: 'retrieval_complete', passages: 24, duration_ms: 210, ...of },
      { type: 'reranking_start', ...of },
      { type: 'reranking_complete', sources: [source], duration_ms: 40, ...of },
    ]
    const message = { id: 'm', content: 'Iron [1]', citations: [{ number: 1, source_id: 's' }] }
    const usage = { input_tokens: 0, output_tokens: 0 }
    const done: StreamEvent = { type: 'done', message, abstained: false, usage, duration_ms: 3000, ...of }
    show(started, routed, ...found, generating, token, done)
    expect(screen.getByTestId('summary').querySelector('summary')?.textContent).toBe(
      'Searched 24 passages, 1 chosen · 3.0 s',
    )
    const stages = ['retrieval', 'reranking', 'generation'].map((name) => screen.getByTestId(`stage-${name}`).textContent)
    expect(stages).toEqual(['24 passages0.2 s', '1 chosen40 ms', 'Written0 ms'])
  })

  test('that could not be copied says so', async () => {
    vi.spyOn(navigator.clipboard, 'writeText').mockRejectedValueOnce(new Error('not allowed'))
    document.execCommand = () => false
    show(started, routed, token, cancelled)
    await act(async () => void fireEvent.click(screen.getByTestId('copy')))
    expect(screen.getByRole('alert').textContent).toBe(texts.answer.uncopied)
  })

  test('that failed without a word shows no sources, and offers another try once', () => {
    show(started, routed, { type: 'reranking_complete', sources: [source], duration_ms: 40, ...of }, failed)
    expect(screen.queryByTestId('sources')).toBeNull()
    expect(screen.getAllByRole('button', { name: /again/i }).length).toBe(1)
  })

  test('that failed in mid-sentence keeps its words and sources, and says that it was interrupted', () => {
    const chosen: StreamEvent = { type: 'reranking_complete', sources: [source], duration_ms: 40, ...of }
    show(started, routed, chosen, token, { ...failed, content: 'Iron is' })
    expect(screen.getByTestId('answer-text').textContent).toBe('Iron is')
    expect(screen.getByText(texts.answer.interrupted)).toBeTruthy()
    expect(screen.getByTestId('source-1')).toBeTruthy()
  })

  test('that failed says why, and offers another try when there is a point in it', () => {
    show(started, routed, failed)
    expect(screen.getByTestId('error').textContent).toContain('The model is away.')
    fireEvent.click(screen.getByText(texts.answer.retry))
    expect(actions.onRegenerate).toHaveBeenCalledOnce()
    cleanup()
    show(started, routed, { ...failed, retryable: false })
    expect(screen.queryByText(texts.answer.retry)).toBeNull()
  })

  test('in which a graph asks several things is answered by id', () => {
    const message = { id: 'm', content: '', citations: [] }
    const usage = { input_tokens: 0, output_tokens: 0 }
    const interrupted = [
      { id: 'a', value: { question: 'Which city?', options: ['Lisbon'] } },
      { id: 'b', value: 'How many?' },
    ]
    show(started, { type: 'done', message, abstained: false, usage, duration_ms: 30, interrupted, ...of })
    expect(screen.getByTestId('asked').textContent).toContain('"options"')
    fireEvent.change(screen.getByLabelText(/Which city/), { target: { value: 'Lisbon' } })
    expect((screen.getByText(texts.asked.send) as HTMLButtonElement).disabled).toBe(true)
    fireEvent.change(screen.getByLabelText(/How many/), { target: { value: ' 4 ' } })
    fireEvent.click(screen.getByText(texts.asked.send))
    expect(actions.onReply).toHaveBeenCalledExactlyOnceWith({ a: 'Lisbon', b: '4' }, 'Lisbon\n4')
  })

  test('whose worker was lost says that it starts again, until there is a new word', () => {
    const reset: StreamEvent = { type: 'reset', attempt: 2, reason: 'worker_lost', ...of }
    show(started, routed, token, reset)
    expect(screen.getByText(texts.answer.restarting)).toBeTruthy()
    cleanup()
    show(started, routed, token, reset, token)
    expect(screen.queryByText(texts.answer.restarting)).toBeNull()
  })

  test.each([
    ['Call your local emergency number (112 in Europe, 911 in North America) now.', ['tel:112', 'tel:911']],
    ['Call 999 now. For advice: NHS 111. Samaritans: **116 123**.', ['tel:999', 'tel:116123']],
    ['Call 000 now, or the Poisons Information Centre (13 11 26).', ['tel:000']],
    ['Call 111 now, or the National Poisons Centre (0800 764 766).', ['tel:111']],
    ['Get help now.', ['tel:112', 'tel:911']],
  ])('of the safety gate has the numbers to call that it names: %j', (content, numbers) => {
    const message = { id: 'm', content, citations: [] }
    const usage = { input_tokens: 0, output_tokens: 0 }
    const done: StreamEvent = { type: 'done', message, abstained: false, usage, duration_ms: 30, ...of }
    show(started, { ...routed, agent: 'safety' }, token, done)
    const calls = Array.from(screen.getByTestId('emergency').querySelectorAll('a'), (link) => link.getAttribute('href'))
    expect(calls).toEqual(numbers)
  })

  test('can call the emergency number of every region that the server may stand in', () => {
    const regions = readFileSync(join(import.meta.dirname, '../../graph/red_flag_texts.yaml'), 'utf8')
    const numbers = Array.from(regions.matchAll(/^ {2}\w+: \{number: "(\d+)"/gm), ([, number]) => number)
    expect(numbers.length).toBeGreaterThan(4)
    expect(texts.emergency.numbers.map(({ number }) => number)).toEqual(expect.arrayContaining(numbers))
  })
})

test('every word that the page shows stands in texts.ts', () => {
  const folder = join(import.meta.dirname, '../src/components')
  const spoken = readdirSync(folder).flatMap((file) => {
    const code = readFileSync(join(folder, file), 'utf8').replaceAll(/^\s*(\/\/|\/?\*).*$/gm, '')
    const written = code.matchAll(/(?<!=)>\s*([A-Za-z][^<>{}=;]*)<\/|(?:title|label|placeholder|alt)="([^"]+)"/g)
    return Array.from(written, ([match]) => `${file}: ${match}`)
  })
  expect(spoken).toEqual([])
})
