// Runs in every page before the page's own code. It writes down all that was ever on the screen, so that a test can say
// "never": what is there for one frame only, a poll from outside would miss.
(() => {
  const texts = {}
  const stages = []
  const notices = []
  const violations = []
  const streams = []
  const gaps = []
  window.witness = { texts, stages, notices, violations, streams, gaps, source: null }

  // A headless browser shows all its tabs at once, so a test says which ones are hidden.
  let hidden = false
  Object.defineProperty(document, 'hidden', { get: () => hidden })
  window.witness.hide = (value) => {
    hidden = value
    document.dispatchEvent(new Event('visibilitychange'))
  }

  // What has been written down is no leak of the page's.
  window.witness.forget = () => {
    for (const turn of Object.keys(texts)) delete texts[turn]
    streams.length = 0
    window.witness.source = null
  }

  const note = (list, value) => {
    if (value !== undefined && list.at(-1) !== value) list.push(value)
  }
  const look = () => {
    for (const answer of document.querySelectorAll('[data-testid=answer]')) {
      texts[answer.dataset.turn] ??= []
      note(texts[answer.dataset.turn], answer.querySelector('[data-testid=answer-text]')?.textContent)
    }
    for (const stage of document.querySelectorAll('[data-testid^=stage-]')) {
      const seen = `${stage.dataset.testid.slice('stage-'.length)} ${stage.dataset.state}`
      if (!stages.includes(seen)) stages.push(seen)
    }
    note(notices, document.querySelector('[data-testid=connection]')?.dataset.state)
  }
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true, attributes: true })

  document.addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective))
  // `ended` and `closed`: when the last event of a turn came in, and when the page closed the connection. `gaps`: for how
  // many milliseconds a connection was away that came back by itself; a server's first frame is a ping.
  window.EventSource = class extends EventSource {
    seen = { url: '', ended: null, closed: null }

    constructor(url, options) {
      super(url, options)
      this.seen.url = url
      streams.push(this.seen)
      witness.source = this
      for (const end of ['done', 'cancelled', 'error']) {
        this.addEventListener(end, (event) => 'data' in event && (this.seen.ended = performance.now()))
      }
      let lost = null
      this.addEventListener('error', (event) => 'data' in event || (lost ??= performance.now()))
      this.addEventListener('ping', () => {
        if (lost !== null) gaps.push(performance.now() - lost)
        lost = null
      })
    }

    close() {
      super.close()
      this.seen.closed ??= performance.now()
    }
  }
})()
