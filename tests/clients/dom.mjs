// A page for React in Node, and a conversation with the test: a command a line comes in, a line of JSON goes out.
import { createInterface } from 'node:readline'
import { Window } from 'happy-dom'

const window = new Window({ url: 'http://localhost/' })
for (const name of ['window', 'document', 'navigator', 'HTMLElement', 'Node', 'Element', 'sessionStorage', 'localStorage'])
  globalThis[name] ??= name === 'window' ? window : window[name]

export const say = (said) => process.stdout.write(`${JSON.stringify(said)}\n`)

export async function obey(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { does, ...given } = JSON.parse(line)
    if (does === 'end') process.exit(0)
    Promise.resolve(commands[does](given)).catch((error) => say({ failed: String(error) }))
  }
}

process.on('unhandledRejection', (error) => say({ failed: String(error) }))
