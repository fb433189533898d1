// Unpacks the Chromium that the browser tests use, with the libraries and fonts it needs: node chromium.mjs FOLDER
// The package itself would unpack into the shared temp folder and take whatever Chromium lies there.
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ARCHIVES = ['chromium.br', 'fonts.tar.br', 'swiftshader.tar.br', 'al2023.tar.br']

// The package's own looks for its fonts in the shared temp folder.
const FONTS_CONF = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">fonts</dir></fontconfig>
`

const folder = resolve(process.argv[2])
mkdirSync(dirname(folder), { recursive: true })
process.env.TMPDIR = mkdtempSync(`${folder}-`)
const { inflate } = await import('@sparticuz/chromium')
const bin = join(dirname(fileURLToPath(import.meta.resolve('@sparticuz/chromium'))), '..', 'bin')
await Promise.all(ARCHIVES.map((archive) => inflate(join(bin, archive))))
writeFileSync(join(process.env.TMPDIR, 'fonts', 'fonts.conf'), FONTS_CONF)
rmSync(folder, { recursive: true, force: true })
renameSync(process.env.TMPDIR, folder)
