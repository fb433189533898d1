import { act, cleanup, fireEvent, render, renderHook, screen } from '@testing-library/react'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { App } from '../src/components/App'
import { useDraft } from '../src/hooks/useDraft'
import { useRoute } from '../src/hooks/useRoute'
import { FakeEventSource } from './eventsource'

const SESSION = '11111111-1111-4111-8111-111111111111'

beforeEach(() => {
  sessionStorage.clear()
  history.replaceState(null, '', '/')
})
afterEach(() => {
  cleanup()
  vi.unstubAllGlobals()
})

test('a reload opens the new chat that was open, and New chat the other one whose question could not be sent', () => {
  const { result } = renderHook(() => useRoute())
  const unsent = result.current.sessionId
  act(() => result.current.spend(unsent))
  act(() => result.current.regain(unsent))
  act(() => result.current.openFresh())
  const open = result.current.sessionId
  expect(open).not.toBe(unsent)
  const draft = renderHook(() => useDraft(open))
  act(() => draft.result.current.write('a long draft'))
  cleanup()

  const again = renderHook(() => useRoute())
  expect(again.result.current.sessionId).toBe(open)
  act(() => again.result.current.openFresh())
  expect(again.result.current.sessionId).toBe(unsent)
  act(() => again.result.current.openFresh())
  expect(again.result.current.sessionId).toBe(open)
})

test('the only new chat stays the only one', () => {
  const { result } = renderHook(() => useRoute())
  const only = result.current.sessionId
  act(() => result.current.openFresh())
  expect(result.current.sessionId).toBe(only)
})

const WAYS = {
  'the button in its place': () => fireEvent.click(screen.getByTestId('error').querySelector('button') as HTMLElement),
  'the button of the list': () => fireEvent.click(screen.getByTestId('new-chat')),
  'the keyboard': () => fireEvent.keyDown(document.body, { key: 'n', code: 'KeyN', altKey: true }),
}
test.each(Object.entries(WAYS))('what was written in a conversation that is gone comes along, by %s', async (_, go) => {
  const gone = (path: RequestInfo | URL): Promise<Response> =>
    Promise.resolve(
      String(path).includes(SESSION)
        ? new Response('{"code":"not_found"}', { status: 404 })
        : new Response('{"sessions":[],"next":null}'),
    )
  vi.stubGlobal('EventSource', FakeEventSource)
  vi.stubGlobal('fetch', gone)
  sessionStorage.setItem(`pulseline:draft:${SESSION}`, 'half a thought')
  history.replaceState(null, '', `/c/${SESSION}`)
  render(<App />)
  await screen.findByTestId('error')
  act(() => void go())
  expect((screen.getByTestId('composer') as HTMLTextAreaElement).value).toBe('half a thought')
})
