import * as fc from 'fast-check'
import { renderToStaticMarkup } from 'react-dom/server'
import { describe, expect, test } from 'vitest'
import { blockCutter, closed, safeAddress, splitBlocks } from '../src/chat/markdown'
import { Markdown } from '../src/components/Markdown'
import type { Source } from '../src/types/streaming'

const source = (id: string): Source => ({ id, title: `Title ${id}`, url: '', score: 1, text: '' })
const SOURCES = [source('a'), source('b')]

function html(text: string, unfinished = false): string {
  return renderToStaticMarkup(<Markdown text={text} unfinished={unfinished} sources={SOURCES} onCite={() => undefined} />)
}

function parsed(text: string): HTMLElement {
  const box = document.createElement('div')
  box.innerHTML = html(text)
  return box
}

// What a model may write, in the pieces that change how Markdown reads.
const piece = fc.constantFrom(
  ...['word ', '**', '*', '_', '~~', '~', '`', '```\n', '[', ']', '(', ')', '![', '](https://a.b/c)', '](javascript:x)'],
  ...['[1]', '[2', '[9]', '[1, 2]', '<b>', '<script>', '<img src=x onerror=y>', '&amp;', '&#60;', '\n', '\n\n', '- ', '1. '],
  ...['> ', '# ', '| a | b |\n', '|---|---|\n', '---\n', '  ', '\t', '[x]: https://a.b\n', 'https://a.b ', 'a@b.c ', '\\'],
)
const text = fc.array(piece, { maxLength: 40 }).map((pieces) => pieces.join(''))

describe('safety', () => {
  test('nothing that a model writes makes an element that could act or load something', () => {
    fc.assert(
      fc.property(text, (written) => {
        const box = parsed(written)
        expect(box.querySelectorAll('script, img, iframe, style, object, svg, form, input').length).toBe(0)
        for (const element of box.querySelectorAll('*')) {
          const handlers = element.getAttributeNames().filter((name) => name.startsWith('on') || name === 'style')
          expect(handlers).toEqual([])
        }
        for (const link of box.querySelectorAll('a')) {
          expect(link.getAttribute('href')).toMatch(/^https?:\/\//)
          expect(link.rel).toBe('noopener noreferrer')
        }
      }),
      { numRuns: 500 },
    )
  })

  test('raw HTML is shown as the characters that it is', () => {
    expect(html('a <img src=x onerror=alert(1)> b')).toContain('&lt;img src=x onerror=alert(1)&gt;')
    expect(html('<script>alert(1)</script>')).toContain('&lt;script&gt;')
  })

  test.each(['javascript:alert(1)', 'data:text/html,x', 'vbscript:x', '//evil.example', '/chat', 'mailto:a@b.c', ' '])(
    'a link to %j is only its text',
    (address) => {
      expect(safeAddress(address)).toBeNull()
      expect(html(`[text](${address})`)).not.toContain('<a')
    },
  )

  test('a link shows the host it leads to', () => {
    const link = parsed('[the **library**](https://library.example.org/iron?x=1)').querySelector('a')
    expect(link?.href).toBe('https://library.example.org/iron?x=1')
    expect(link?.textContent).toContain('(library.example.org)')
  })

  test('an image is its description', () => {
    expect(html('![a chart](https://tracker.example/x.png)')).toBe('<p dir="auto">a chart</p>')
  })
})

describe('citations', () => {
  test('a number of a source is a button with the source as its name', () => {
    const button = parsed('Iron [2].').querySelector('button')
    expect(button?.textContent).toBe('2')
    expect(button?.getAttribute('aria-label')).toBe('Source 2: Title b')
  })

  test('several numbers in one bracket are several buttons', () => {
    expect(parsed('Iron [1, 2] and [1][2].').querySelectorAll('button').length).toBe(4)
  })

  test.each([
    ['Iron is low. [1] So', 'low. 1'],
    ['Iron is low [1]. So', 'low 1.'],
    ['Iron is low [1][2] (so', 'low 12'],
    ['Iron is low [1] [2], so', 'low 1 2,'],
    ['**Iron** [1] is', '1'],
  ])('%j begins no line with a citation', (written, tied) => {
    const box = parsed(written)
    expect(Array.from(box.querySelectorAll('.tied'), (span) => span.textContent?.trim())).toEqual([tied])
    expect(box.textContent).toBe(written.replaceAll(/\*|[[\]]/g, ''))
  })

  test('a word too long for a line may still be broken', () => {
    expect(parsed(`${'x'.repeat(60)} [1]`).querySelector('.tied')?.textContent?.length).toBeLessThan(30)
  })

  test('a number without a source stays text', () => {
    expect(html('See [9] and [0] and [1, 9].')).toBe('<p dir="auto">See [9] and [0] and [1, 9].</p>')
  })

  test('a definition that a model adds does not turn citations into links', () => {
    const box = parsed('Iron [1].\n\n[1]: https://evil.example')
    expect(box.querySelector('button')).not.toBeNull()
    expect(box.querySelector('p a')).toBeNull()
  })
})

describe('reading', () => {
  test('a single tilde strikes nothing out', () => {
    expect(html('1~2 tablets for 3~4 days')).toBe('<p dir="auto">1~2 tablets for 3~4 days</p>')
    expect(html('~~old~~')).toContain('<del>old</del>')
  })

  test('character references are read once', () => {
    expect(html('&lt;30 &micro;g &amp;amp; 5 &unknown;')).toBe('<p dir="auto">&lt;30 µg &amp;amp; 5 &amp;unknown;</p>')
  })

  test('a table and a list keep their structure', () => {
    const box = parsed('| a | b |\n|---|--:|\n| **1** | 2 |\n\n3. x\n4. y\n   - z\n')
    expect(box.querySelector('td strong')?.textContent).toBe('1')
    expect(box.querySelector('td.align-right')?.textContent).toBe('2')
    expect(box.querySelector('ol')?.getAttribute('start')).toBe('3')
    expect(box.querySelector('ol ul li')?.textContent).toBe('z')
  })
})

describe('while tokens arrive', () => {
  test('the blocks are the text', () => {
    fc.assert(
      fc.property(text, (written) => {
        expect(splitBlocks(written).join('')).toBe(written.replaceAll('\t', '    '))
      }),
      { numRuns: 1000 },
    )
  })

  test('cutting what has grown gives the blocks of cutting it whole', () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        const cut = blockCutter()
        let written = ''
        for (const next of pieces) {
          written += next
          expect(cut(written)).toEqual(splitBlocks(written))
        }
      }),
      { numRuns: 2000 },
    )
  })

  test('a text that is replaced is cut anew', () => {
    const cut = blockCutter()
    cut('one\n\ntwo\n\nthree')
    expect(cut('other\n\ntext')).toEqual(splitBlocks('other\n\ntext'))
  })

  test.each([
    ['**bold', '<strong>bold</strong>'],
    ['see [the library](https://a.b', 'see the library'],
    ['iron [1', '<p dir="auto">iron</p>'],
    ['iron [1, ', '<p dir="auto">iron</p>'],
  ])('%j is closed', (written, shown) => {
    expect(html(written, true)).toContain(shown)
  })

  test('what is complete is not touched', () => {
    expect(closed('- item **bold** [1]')).toBe('- item **bold** [1]')
  })
})
