import { texts } from '../texts'
import type { Source } from '../types/streaming'

interface SourceListProps {
  sources: readonly Source[]
  cited: ReadonlySet<number>
  onOpen(number: number): void
}

/** The sources under an answer; each opens its passage. */
export function SourceList({ sources, cited, onOpen }: SourceListProps) {
  return (
    <section className="source-list" data-testid="sources">
      <h3>{texts.sources.heading}</h3>
      <ol>
        {sources.map((source, index) => (
          <li key={source.id}>
            <button
              type="button"
              data-testid={`source-${index + 1}`}
              data-cited={cited.has(index + 1)}
              title={source.title}
              onClick={() => onOpen(index + 1)}
            >
              <span className="number">{index + 1}</span> <span className="title">{source.title}</span>
              {!cited.has(index + 1) && <span className="unseen"> ({texts.sources.uncited})</span>}
            </button>
          </li>
        ))}
      </ol>
    </section>
  )
}
