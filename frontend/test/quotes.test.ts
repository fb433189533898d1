import { expect, test } from 'vitest'
import { quotedParts } from '../src/chat/quotes'

const PASSAGE = 'Iron is a metal. Tiredness and pale skin\nare common signs. A doctor can measure ferritin in the blood. Yes.'

test('the sentences that an answer has taken over are found, over line breaks, emphasis and citations', () => {
  const parts = quotedParts(PASSAGE, 'Yes. **Tiredness** and pale skin are common signs. [1, 2] Ask your doctor.')
  expect(parts.map((part) => part.text).join('')).toBe(PASSAGE)
  expect(parts.filter((part) => part.quoted).map((part) => part.text.trim())).toEqual([
    'Tiredness and pale skin\nare common signs.',
  ])
})

test('an answer in its own words quotes nothing', () => {
  expect(quotedParts(PASSAGE, 'Pale skin may be a sign. [1]').some((part) => part.quoted)).toBe(false)
})
