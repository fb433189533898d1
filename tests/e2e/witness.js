// Runs in every page before the page's own code. It writes down all that was ever on the screen, so that a test can say
// "never": what is there for one frame only, a poll from outside would miss.
(() => {
  const texts = {}
  const stages = []
  const notices = []
  const violations = []
  const streams = []
  window.witness = { texts, stages, notices, violations, streams }

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
  window.EventSource = class extends EventSource {
    constructor(...options) {
      super(...options)
      streams.push(this)
    }
  }
})()
