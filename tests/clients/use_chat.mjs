// useChat of @ai-sdk/react: `node use_chat.mjs 6|7 URL COOKIE CHAT`. Says its state after each render.
import { obey, say } from './dom.mjs'

const [version, url, cookie, id] = process.argv.slice(2)
const { createElement, useEffect } = await import('react')
const { createRoot } = await import('react-dom/client')
const { useChat } = await import(version === '7' ? '@ai-sdk/react' : '@ai-sdk/react-v6')
const { DefaultChatTransport } = await import(version === '7' ? 'ai-v7' : 'ai-v6')

const headers = { cookie, ...(version === '7' ? { 'x-ai-sdk-version': '7' } : {}) }
const transport = new DefaultChatTransport({ api: `${url}/api/chat`, headers })
let chat
let shown
const isShown = new Promise((resolve) => (shown = resolve))

const textOf = (parts) => parts.map((part) => (part.type === 'text' ? part.text : '')).join('')
const question = () => chat.messages.findLast((message) => message.role === 'user')

function Chat() {
  chat = useChat({ id, transport })
  useEffect(() => {
    const last = chat.messages.at(-1)
    const parts = last?.role === 'assistant' ? last.parts : []
    const error = chat.error ? String(chat.error.message) : null
    const roles = chat.messages.map((message) => message.role)
    const asked = textOf(question()?.parts ?? [])
    say({ status: chat.status, id: last?.id, text: textOf(parts), parts, roles, asked, error })
    shown()
  })
  return null
}

createRoot(document.body).render(createElement(Chat))
await isShown // before that there is nobody to obey
await obey({
  send: ({ text, ...more }) => chat.sendMessage({ text }, more),
  edit: ({ text }) => chat.sendMessage({ text, messageId: question().id }),
  resume: () => chat.resumeStream(),
  regenerate: () => chat.regenerate(),
  leave: async () => {
    await chat.stop()
    say({ left: true, status: '' })
  },
  stop: () => fetch(`${url}/api/chat/${id}/stop`, { method: 'POST', headers }),
})
