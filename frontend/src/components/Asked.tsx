import { type FormEvent, useId, useState } from 'react'
import { texts } from '../texts'
import type { Interrupt } from '../types/streaming'

interface AskedProps {
  questions: readonly Interrupt[]
  waiting: boolean
  onReply(resume: unknown, message: string): void
}

/** What a graph asks the person before it goes on. One question is answered in the text field, several in a form here. */
export function Asked({ questions, waiting, onReply }: AskedProps) {
  const [only, ...others] = questions
  const one = others.length === 0
  return (
    <section className="asked" data-testid="asked" data-waiting={waiting || undefined}>
      <h3>{texts.asked.heading}</h3>
      {waiting && !one ? (
        <Form questions={questions} onReply={onReply} />
      ) : (
        questions.map((question) => <Value key={question.id} value={question.id ? question.value : texts.asked.paused} />)
      )}
      {waiting && one && only?.id && <p className="hint">{texts.asked.one}</p>}
      {waiting && one && !only?.id && (
        <button type="button" className="button" onClick={() => onReply(true, texts.asked.goOn)}>
          {texts.asked.goOn}
        </button>
      )}
    </section>
  )
}

function Form({ questions, onReply }: Omit<AskedProps, 'waiting'>) {
  const [answers, setAnswers] = useState<Record<string, string>>({})
  const id = useId()
  const given = questions.map((question) => answers[question.id]?.trim() ?? '')
  const complete = given.every(Boolean)
  const send = (event: FormEvent): void => {
    event.preventDefault()
    const resume = Object.fromEntries(questions.map((question, index) => [question.id, given[index]]))
    if (complete) onReply(resume, given.join('\n'))
  }
  return (
    <form onSubmit={send}>
      {questions.map((question) => (
        <div key={question.id}>
          <div id={`${id}${question.id}`}>
            <Value value={question.value} />
          </div>
          <input
            dir="auto"
            aria-labelledby={`${id}${question.id}`}
            value={answers[question.id] ?? ''}
            onChange={(event) => setAnswers({ ...answers, [question.id]: event.target.value })}
          />
        </div>
      ))}
      <button type="submit" className="button" disabled={!complete}>
        {texts.asked.send}
      </button>
    </form>
  )
}

// Where graphs put the words for a person; what else they say is shown as it is.
const WORDS = ['question', 'message', 'prompt', 'description']

function Value({ value }: { value: unknown }) {
  const [words, rest] = said(value)
  return (
    <>
      {words && <p dir="auto">{words}</p>}
      {rest !== undefined && (
        <pre dir="ltr">
          <code>{JSON.stringify(rest, null, 2)}</code>
        </pre>
      )}
    </>
  )
}

function said(value: unknown): [words: string, rest: unknown] {
  if (typeof value === 'string') return [value, undefined]
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return ['', value]
  const { [WORDS.find((word) => word in value) ?? '']: words, ...rest } = value as Record<string, unknown>
  if (typeof words !== 'string') return ['', value]
  return [words, Object.keys(rest).length > 0 ? rest : undefined]
}
