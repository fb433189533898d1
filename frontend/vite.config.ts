import react from '@vitejs/plugin-react'
import { defineConfig } from 'vitest/config'

const API = process.env.VITE_API ?? 'http://127.0.0.1:8000'

export default defineConfig({
  plugins: [react()],
  // The page's policy allows no data: scripts or styles, so every asset is a hashed file.
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, target: 'es2022' },
  server: { proxy: { '/chat': API, '/sessions': API, '/healthz': API } },
  test: { environment: 'happy-dom', include: ['test/**/*.test.{ts,tsx}'], testTimeout: 20_000 },
})
