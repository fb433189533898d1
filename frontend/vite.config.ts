import react from '@vitejs/plugin-react'
import { defineConfig } from 'vitest/config'

const API = process.env.VITE_API ?? 'http://127.0.0.1:8000'

export default defineConfig({
  plugins: [react()],
  // The page's policy allows no data: scripts or styles, so every asset is a hashed file.
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, target: 'es2022' },
  // The host stays the page's own, which the API compares with the request's Origin.
  server: { proxy: Object.fromEntries(['/chat', '/sessions', '/healthz'].map((path) => [path, { target: API }])) },
  test: { environment: 'happy-dom', include: ['test/**/*.test.{ts,tsx}'], testTimeout: 20_000 },
})
