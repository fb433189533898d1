import { texts } from '../texts'
import type { Source } from '../types/streaming'

interface SourceListProps {
  sources: readonly Source[]
  cited: ReadonlySet<number>
  onOpen(number: number): void
}

/** The sources under an answer; each opens its passage. What was read and not cited is folded away. */
export function SourceList({ sources, cited, onOpen }: SourceListProps) {
  const numbers = sources.map((_, index) => index + 1)
  const named = numbers.filter((number) => cited.has(number))
  const others = numbers.filter((number) => !cited.has(number))
  const list = (shown: readonly number[]) => (
    <ol>
      {shown.map((number) => (
        <li key={number}>
          <button
            type="button"
            data-testid={`source-${number}`}
            data-cited={cited.has(number)}
            title={sources[number - 1]?.title}
            onClick={() => onOpen(number)}
          >
            <span className="number">{number}</span> <span className="title">{sources[number - 1]?.title}</span>
          </button>
        </li>
      ))}
    </ol>
  )
  return (
    <section className="source-list" data-testid="sources">
      <h3>{named.length > 0 ? texts.sources.heading : texts.sources.read}</h3>
      {list(named.length > 0 ? named : others)}
      {named.length > 0 && others.length > 0 && (
        <details>
          <summary>{texts.sources.uncited(others.length)}</summary>
          {list(others)}
        </details>
      )}
    </section>
  )
}
