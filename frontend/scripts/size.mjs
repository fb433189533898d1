// Fails when what a first visit loads, compressed, is over its budget.
import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'

const BUDGET_KILOBYTES = { js: 140, css: 15 }
const ASSETS = fileURLToPath(new URL('../dist/assets/', import.meta.url))

function kilobytes(extension) {
  const files = readdirSync(ASSETS).filter((name) => name.endsWith(`.${extension}`))
  if (files.length === 0) throw new Error(`no .${extension} in dist/assets: run \`npm run build\` first`)
  return files.reduce((sum, name) => sum + gzipSync(readFileSync(ASSETS + name)).length, 0) / 1000
}

let over = false
for (const [extension, budget] of Object.entries(BUDGET_KILOBYTES)) {
  const size = kilobytes(extension)
  over ||= size > budget
  console.log(`${extension.padEnd(4)} ${size.toFixed(1).padStart(6)} KB gzip of ${budget}`)
}
process.exit(over ? 1 : 0)
