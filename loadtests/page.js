// Runs in the page before its own code: when each word came in, when a paint had it, and how evenly frames came.
(() => {
  const measured = { shownAfter: [], gaps: [], tasks: [], words: 0 }
  window.measured = measured
  const waiting = [] // arrival of word number `measured.shownAfter.length + index`
  let running = false
  let lastFrame = 0

  window.EventSource = class extends EventSource {
    constructor(url, options) {
      super(url, options)
      this.addEventListener('token', (event) => {
        const now = performance.now()
        running = true
        for (const _ of JSON.parse(event.data).content.matchAll(/\S+/g)) {
          measured.words += 1
          waiting.push(now)
        }
      })
      for (const end of ['done', 'cancelled', 'error']) this.addEventListener(end, () => (running = false))
    }
  }

  // A message posted in an animation frame arrives after the frame's paint.
  const { port1, port2 } = new MessageChannel()
  port1.onmessage = () => {
    const shown = lastWord() + 1 - measured.shownAfter.length
    const now = performance.now()
    for (const arrived of waiting.splice(0, Math.max(0, shown))) measured.shownAfter.push(now - arrived)
  }
  const frame = (time) => {
    if (running && lastFrame) measured.gaps.push(time - lastFrame)
    lastFrame = running ? time : 0
    port2.postMessage('')
    requestAnimationFrame(frame)
  }
  requestAnimationFrame(frame)
  new PerformanceObserver((list) => {
    if (running) measured.tasks.push(...list.getEntries().map((entry) => entry.duration))
  }).observe({ type: 'longtask' })

  // Of `w0 w1 w2 …`, by its last text node only, so that looking costs next to nothing.
  function lastWord() {
    let node = document.querySelector('[data-testid=answer-text]')
    while (node?.lastChild) node = node.lastChild
    return Number(node?.data?.slice(-16).match(/w(\d+)\s*$/)?.[1] ?? -1)
  }
})()
