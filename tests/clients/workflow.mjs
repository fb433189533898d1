// WorkflowChatTransport of @ai-sdk/workflow: `node workflow.mjs URL COOKIE CHAT`. Says each chunk.
import { obey, say } from './dom.mjs'

const [url, cookie, chatId] = process.argv.slice(2)
const { WorkflowChatTransport } = await import('@ai-sdk/workflow/client')

const headers = { cookie, 'content-type': 'application/json', 'x-ai-sdk-version': '7' }
const transport = new WorkflowChatTransport({
  api: `${url}/api/chat`,
  prepareSendMessagesRequest: ({ id, messages, trigger, messageId, body }) => ({
    body: { id, messages, trigger, messageId, ...body },
    headers,
  }),
  prepareReconnectToStreamRequest: ({ api }) => ({ api, headers }),
})

async function tell(stream) {
  for await (const chunk of await stream) say({ chunk })
  say({ ended: true })
}

await obey({
  greet: () => say({ ready: true }),
  send: ({ text, id = crypto.randomUUID(), ...more }) => {
    const messages = [{ id, role: 'user', parts: [{ type: 'text', text }] }]
    return tell(transport.sendMessages({ chatId, messages, trigger: 'submit-message', ...more }))
  },
  stop: () => fetch(`${url}/api/chat/${chatId}/stop`, { method: 'POST', headers }),
  join: ({ run, startIndex }) => tell(transport.reconnectToStream({ chatId: run, startIndex })),
})
