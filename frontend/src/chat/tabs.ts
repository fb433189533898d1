// Tells this browser's other tabs that the list of conversations has changed. One channel for both ways, for a tab does
// not hear what it says itself on the channel that it listens to.
const channel = new BroadcastChannel('pulseline')

export const announceChange = (): void => channel.postMessage('')

export const onChangeElsewhere = (listener: () => void, signal: AbortSignal): void =>
  channel.addEventListener('message', listener, { signal })
