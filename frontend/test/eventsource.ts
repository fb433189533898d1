import type { StreamEvent } from '../src/types/streaming'

/** Stands in for the browser's EventSource; a test plays the server. */
export class FakeEventSource extends EventTarget {
  static readonly CONNECTING = 0
  static readonly OPEN = 1
  static readonly CLOSED = 2
  static opened: FakeEventSource[] = []

  readonly url: string
  readyState = FakeEventSource.CONNECTING
  closedByPage = false

  constructor(url: string) {
    super()
    this.url = url
    FakeEventSource.opened.push(this)
  }

  static get last(): FakeEventSource {
    const source = FakeEventSource.opened.at(-1)
    if (!source) throw new Error('no EventSource was opened')
    return source
  }

  static get open(): FakeEventSource[] {
    return FakeEventSource.opened.filter((source) => source.readyState !== FakeEventSource.CLOSED)
  }

  close(): void {
    this.readyState = FakeEventSource.CLOSED
    this.closedByPage = true
  }

  ping(data: object = {}): void {
    this.readyState = FakeEventSource.OPEN
    this.dispatchEvent(new MessageEvent('ping', { data: JSON.stringify(data) }))
  }

  send(seq: number, type: StreamEvent['type'], data: object): void {
    // A closed one delivers nothing.
    if (this.closedByPage) return
    this.readyState = FakeEventSource.OPEN
    this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(data), lastEventId: String(seq) }))
  }

  /** The body ends, or the network breaks: the browser will come back by itself. */
  breakOff(): void {
    this.readyState = FakeEventSource.CONNECTING
    this.dispatchEvent(new Event('error'))
  }

  /** 204, 404 or 5xx: the browser gives up. */
  refuse(): void {
    this.readyState = FakeEventSource.CLOSED
    this.dispatchEvent(new Event('error'))
  }
}

export function setHidden(hidden: boolean): void {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden })
  document.dispatchEvent(new Event('visibilitychange'))
}

export function setOnline(online: boolean): void {
  Object.defineProperty(navigator, 'onLine', { configurable: true, get: () => online })
  window.dispatchEvent(new Event(online ? 'online' : 'offline'))
}
