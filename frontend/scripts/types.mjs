// Writes src/types/streaming.ts from the Pydantic models; with --check it only says whether the file is what it would write.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { compile } from 'json-schema-to-typescript'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const FILE = fileURLToPath(new URL('../src/types/streaming.ts', import.meta.url))
const PYTHON = process.env.PYTHON ?? '.venv/bin/python'
const REQUESTS = new Set(['StartRequest', 'CancellationRequest', 'Feedback', 'TitleChange'])

// What the server sends leaves out only what is null, so every other property with a default is there.
function alwaysSent(schema) {
  const sent = Object.entries(schema.properties ?? {}).filter(([, property]) => (property.default ?? null) !== null)
  return [...new Set([...(schema.required ?? []), ...sent.map(([name]) => name)])]
}

// A title would make a type alias of each property, a default beside a $ref a second copy of its type.
const isNoise = (key, value) => (key === 'title' && typeof value === 'string') || key === 'default'

function plain(node) {
  if (Array.isArray(node)) return node.map(plain)
  if (node === null || typeof node !== 'object') return node
  const kept = Object.entries(node).filter(([key, value]) => !isNoise(key, value))
  return Object.fromEntries(kept.map(([key, value]) => [key, plain(value)]))
}

function definition(name, schema) {
  const { discriminator: _, ...rest } = plain(schema)
  return REQUESTS.has(name) ? rest : { ...rest, required: alwaysSent(schema) }
}

async function generate() {
  const schema = JSON.parse(execFileSync(PYTHON, ['-m', 'functions.schema'], { cwd: ROOT, encoding: 'utf8' }))
  const $defs = Object.fromEntries(Object.entries(schema.$defs).map(([name, body]) => [name, definition(name, body)]))
  const types = await compile({ title: 'Pulseline', type: 'object', additionalProperties: false, $defs }, 'Pulseline', {
    additionalProperties: false,
    unreachableDefinitions: true,
    bannerComment: '// Generated from the Pydantic models by `npm run types`. Do not edit.',
    style: { semi: false, singleQuote: true, printWidth: 120 },
  })
  return types
    .replace(/export interface Pulseline \{\}\n+/, '')
    .replace(/\n?\s*\*?\s*This interface was referenced by `Pulseline`'s JSON-Schema[\s\S]*?via the `definition` "\w+"\./g, '')
    .replace(/\/\*\*\n \*\/\n/g, '')
    .replace(/\n \*\n \*\//g, '\n */')
}

const types = await generate()
if (!process.argv.includes('--check')) {
  writeFileSync(FILE, types)
} else if (types !== readFileSync(FILE, 'utf8')) {
  console.error('src/types/streaming.ts has drifted from the Pydantic models: run `npm run types`.')
  process.exit(1)
}
