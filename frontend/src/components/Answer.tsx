import { memo, useCallback, useId, useState } from 'react'
import type { AnswerView } from '../chat/answers'
import { copyText } from '../chat/clipboard'
import { texts } from '../texts'
import { Asked } from './Asked'
import { Emergency } from './Emergency'
import { AgainIcon, CheckIcon, CopyIcon, DownvoteIcon, UpvoteIcon } from './Icons'
import { Markdown } from './Markdown'
import { SourceList } from './SourceList'
import { StageSummary, Stages } from './Stages'

export interface AnswerActions {
  onCite(turnId: string, number: number): void
  onRegenerate(): void
  onReply(resume: unknown, message: string): void
  onFeedback(turnId: string, value: Vote): Promise<void>
}

export type Vote = AnswerView['feedback']

interface AnswerProps extends AnswerActions {
  answer: AnswerView
  /** Only the last answer can be written again. */
  last: boolean
  /** What it asked waits for an answer. */
  waiting: boolean
}

export const Answer = memo(function Answer({ answer, last, waiting, ...actions }: AnswerProps) {
  const { onCite, onRegenerate, onReply, onFeedback } = actions
  const { turnId, status, text, sources } = answer
  // What was read and found wanting is no source of the answer, nor is it one of an answer without a word.
  const listed = status !== 'running' && !answer.abstained && text !== '' && sources.length > 0
  const headingId = useId()
  const running = status === 'running'
  const cite = useCallback((number: number): void => onCite(turnId, number), [onCite, turnId])
  const prose = (
    <div className="prose" data-testid="answer-text" data-running={running || undefined}>
      <Markdown text={text} unfinished={status !== 'complete'} sources={sources} onCite={cite} />
    </div>
  )
  return (
    <article
      className="answer"
      data-testid="answer"
      data-status={status}
      data-turn={turnId}
      aria-labelledby={headingId}
      aria-busy={running}
    >
      <h2 id={headingId} className="unseen">
        {texts.conversation.answer}
      </h2>
      {answer.agent !== 'safety' && <Progress answer={answer} onOpenSources={() => cite(1)} />}
      {answer.restarting && <p className="note">{texts.answer.restarting}</p>}
      {answer.agent === 'safety' ? (
        <Emergency text={text} running={running}>
          {prose}
        </Emergency>
      ) : (
        prose
      )}
      {answer.asked.length > 0 && <Asked questions={answer.asked} waiting={waiting} onReply={onReply} />}
      <Ending answer={answer} onRegenerate={last ? onRegenerate : undefined} />
      {listed && <SourceList sources={sources} cited={answer.cited} onOpen={cite} />}
      {!running && (text !== '' || status !== 'error') && (
        <Footer
          answer={answer}
          onRegenerate={last && status !== 'error' ? onRegenerate : undefined}
          onFeedback={onFeedback}
        />
      )}
    </article>
  )
})

function Progress({ answer, onOpenSources }: { answer: AnswerView; onOpenSources(): void }) {
  if (answer.status !== 'running') return <StageSummary answer={answer} onOpenSources={onOpenSources} />
  return <Stages agent={answer.agent} stages={answer.stages} onOpenSources={onOpenSources} />
}

interface EndingProps {
  answer: AnswerView
  onRegenerate: (() => void) | undefined
}

/** How the answer ended, when not simply well. */
function Ending({ answer, onRegenerate }: EndingProps) {
  if (answer.status === 'cancelled') {
    return answer.text === '' ? (
      <p className="note">{texts.answer.stoppedEmpty}</p>
    ) : (
      <p className="badge">{texts.answer.stopped}</p>
    )
  }
  if (answer.status === 'error') {
    return (
      <div className="failure" data-testid="error">
        {answer.text !== '' && <p className="badge">{texts.answer.interrupted}</p>}
        <p>{answer.error?.message ?? texts.answer.failed}</p>
        {answer.error?.retryable && onRegenerate && (
          <button type="button" className="button" onClick={onRegenerate}>
            {texts.answer.retry}
          </button>
        )}
      </div>
    )
  }
  return answer.abstained ? <p className="badge">{texts.answer.abstained}</p> : null
}

interface FooterProps {
  answer: AnswerView
  onRegenerate: (() => void) | undefined
  onFeedback(turnId: string, value: Vote): Promise<void>
}

function Footer({ answer, onRegenerate, onFeedback }: FooterProps) {
  const [chosen, setChosen] = useState<Vote | null>(null)
  const [trouble, setTrouble] = useState('')
  const vote = chosen ?? answer.feedback
  // Shown at once, and taken back when the server could not store it.
  const choose = (value: Vote): void => {
    const next = vote === value ? 0 : value
    setChosen(next)
    setTrouble('')
    onFeedback(answer.turnId, next).catch(() => {
      setChosen(vote)
      setTrouble(texts.answer.unjudged)
    })
  }
  return (
    <footer className="actions">
      {answer.text !== '' && <Copy text={answer.text} onCopied={(done) => setTrouble(done ? '' : texts.answer.uncopied)} />}
      {onRegenerate && (
        <button type="button" className="tool" title={texts.answer.regenerate} onClick={onRegenerate}>
          <AgainIcon />
          <span className="unseen">{texts.answer.regenerate}</span>
        </button>
      )}
      {answer.status === 'complete' && (
        <>
          <VoteButton value={1} vote={vote} onChoose={choose} />
          <VoteButton value={-1} vote={vote} onChoose={choose} />
        </>
      )}
      {trouble && (
        <span className="hint" role="alert">
          {trouble}
        </span>
      )}
    </footer>
  )
}

function VoteButton({ value, vote, onChoose }: { value: 1 | -1; vote: Vote; onChoose(value: Vote): void }) {
  const label = value === 1 ? texts.answer.helpful : texts.answer.unhelpful
  return (
    <button type="button" className="tool" title={label} aria-pressed={vote === value} onClick={() => onChoose(value)}>
      {value === 1 ? <UpvoteIcon /> : <DownvoteIcon />}
      <span className="unseen">{label}</span>
    </button>
  )
}

const COPIED_SECONDS = 2

function Copy({ text, onCopied }: { text: string; onCopied(done: boolean): void }) {
  const [copied, setCopied] = useState(false)
  const copy = async (): Promise<void> => {
    const done = await copyText(text)
    onCopied(done)
    if (!done) return
    setCopied(true)
    setTimeout(() => setCopied(false), COPIED_SECONDS * 1000)
  }
  const label = copied ? texts.answer.copied : texts.answer.copy
  return (
    <button type="button" className="tool" data-testid="copy" title={label} onClick={() => void copy()}>
      {copied ? <CheckIcon /> : <CopyIcon />}
      <span className="unseen">{label}</span>
    </button>
  )
}
