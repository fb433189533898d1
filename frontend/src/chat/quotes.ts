// Which sentences of a passage an answer has taken over word by word.
const SHORTEST_CHARACTERS = 20

const sentences = new Intl.Segmenter(undefined, { granularity: 'sentence' })

// Without citations, emphasis and line breaks, in which the two may differ.
const plain = (text: string): string =>
  text.replaceAll(/\s*\[\d[\d,\s]*\]/g, '').replaceAll(/[*_`]/g, '').replaceAll(/\s+/g, ' ').trim()

// A line's end ends no sentence, unless a paragraph or a point of a list follows. Of the same length as the passage.
const joined = (passage: string): string => passage.replaceAll(/(?<!\n)\n(?!\n|[-*•] )/g, ' ')

export interface Part {
  /** Where in the passage it begins. */
  at: number
  text: string
  quoted: boolean
}

/** The passage in parts; joined, they are its text. */
export function quotedParts(passage: string, answer: string): Part[] {
  const said = plain(answer)
  return Array.from(sentences.segment(joined(passage)), ({ segment, index: at }) => {
    const sentence = plain(segment)
    const quoted = sentence.length >= SHORTEST_CHARACTERS && said.includes(sentence)
    return { at, text: passage.slice(at, at + segment.length), quoted }
  })
}
