// @langchain/langgraph-sdk: `node langgraph.mjs URL COOKIE`. `stream` says each frame, `hook` the state of useStream.
import { obey, say } from './dom.mjs'

const [apiUrl, cookie] = process.argv.slice(2)
const { Client } = await import('@langchain/langgraph-sdk')
const client = new Client({ apiUrl, defaultHeaders: { cookie } })
const human = (content) => ({ messages: [{ type: 'human', content }] })
let hook
let known // the thread, which a page has in its address
let root
let remount

async function stream({ thread, text, modes }) {
  const threadId = thread ?? (await client.threads.create()).thread_id
  say({ thread: threadId })
  const onRunCreated = (run) => say({ run: run.run_id })
  for await (const frame of client.runs.stream(threadId, 'agent', { input: human(text), streamMode: modes, onRunCreated }))
    say({ frame })
  say({ ended: true })
}

async function use({ history }) {
  const { createElement, useEffect, useState } = await import('react')
  const { createRoot } = await import('react-dom/client')
  const { useStream } = await import('@langchain/langgraph-sdk/react')
  known = null
  function Chat() {
    const [threadId, setThreadId] = useState(known)
    const onThreadId = (id) => setThreadId((known = id))
    const kept = { fetchStateHistory: history, reconnectOnMount: history, threadId, onThreadId }
    hook = useStream({ client, assistantId: 'agent', messagesKey: 'messages', ...kept })
    useEffect(() => {
      const messages = hook.messages.map(({ id, type, content }) => ({ id, type, content }))
      const error = hook.error ? String(hook.error) : null
      say({ loading: hook.isLoading, messages, interrupt: hook.interrupt?.value ?? null, error })
    })
    return null
  }
  remount = () => {
    root?.unmount()
    root = createRoot(document.body)
    root.render(createElement(Chat))
  }
  remount()
}

const before = (message) => hook.getMessagesMetadata(message).firstSeenState.parent_checkpoint

await obey({
  stream,
  use,
  submit: ({ text }) => hook.submit(human(text)),
  reload: () => {
    remount()
    say({ reloaded: true })
  },
  regenerate: () => hook.submit(undefined, { checkpoint: before(hook.messages.at(-1)) }),
  edit: ({ text }) => hook.submit(human(text), { checkpoint: before(hook.messages.at(0)) }),
  answer: ({ resume }) => hook.submit(undefined, { command: { resume } }),
  stop: () => hook.stop(),
  cancel: async ({ thread, run }) => {
    await client.runs.cancel(thread, run, true)
    say({ state: await client.threads.getState(thread), status: (await client.runs.get(thread, run)).status })
  },
  join: async () => {
    const [run] = await client.runs.list(known)
    await client.runs.join(known, run.run_id)
    say({ state: await client.threads.getState(known), status: (await client.runs.get(known, run.run_id)).status })
  },
})
