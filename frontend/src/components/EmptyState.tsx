import { texts } from '../texts'

export function EmptyState({ onAsk }: { onAsk(question: string): void }) {
  return (
    <section className="empty">
      <h2>{texts.empty.heading}</h2>
      <p>{texts.empty.lead}</p>
      <ul aria-label={texts.empty.examplesLabel}>
        {texts.empty.examples.map((question) => (
          <li key={question}>
            <button type="button" data-testid="example" onClick={() => onAsk(question)}>
              {question}
            </button>
          </li>
        ))}
      </ul>
    </section>
  )
}
