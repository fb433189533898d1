// Tells this browser's other tabs that a session has changed, so that they ask the server about it.
const CHANNEL = 'pulseline'

export function announceChange(sessionId: string): void {
  const channel = new BroadcastChannel(CHANNEL)
  channel.postMessage(sessionId)
  channel.close()
}

export function onChangeElsewhere(listener: (sessionId: string) => void, signal: AbortSignal): void {
  const channel = new BroadcastChannel(CHANNEL)
  channel.addEventListener('message', (event: MessageEvent<string>) => listener(event.data))
  signal.addEventListener('abort', () => channel.close())
}
