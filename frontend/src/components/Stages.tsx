import type { AnswerView } from '../chat/answers'
import { duration, texts } from '../texts'
import type { Message, StageState } from '../types/streaming'
import { CheckIcon, Pulse, StopIcon } from './Icons'

// What is still to come is known for the product's own agents only.
const AHEAD: Record<string, readonly string[]> = {
  rag_agent: ['retrieval', 'reranking', 'generation'],
  emotional_support: ['generation'],
}

interface StagesProps {
  agent: Message['agent']
  stages: readonly StageState[]
  onOpenSources(): void
}

/** A running turn's stages: done, under way, still to come. */
export function Stages({ agent, stages, onOpenSources }: StagesProps) {
  const begun = new Set(stages.map((stage) => stage.name))
  const ahead = (AHEAD[agent ?? ''] ?? []).filter((name) => !begun.has(name))
  return (
    <ol className="stages" aria-label={texts.stages.label}>
      {stages.length + ahead.length === 0 && (
        <li className="stage" data-testid="stage-reading" data-state="active">
          <Pulse /> {texts.stages.reading}
        </li>
      )}
      {stages.map((stage) => (
        <Stage key={stage.name} stage={stage} onOpenSources={onOpenSources} />
      ))}
      {ahead.map((name) => (
        <li key={name} className="stage" data-testid={`stage-${name}`} data-state="pending">
          <span className="mark" /> {texts.stages.name(name).waiting}
        </li>
      ))}
    </ol>
  )
}

/** What an ended turn did, on one line; the stages with their durations unfold from it. */
export function StageSummary({ answer, onOpenSources }: { answer: AnswerView; onOpenSources(): void }) {
  const { stages, abstained, durationMilliseconds, endedAt } = answer
  const said = texts.stages.summary(stages, abstained, durationMilliseconds)
  const ended = endedAt ? texts.answer.endedAt(endedAt) : undefined
  if (stages.length < 2) return said && <p className="summary" title={ended}>{said}</p>
  return (
    <details className="summary" data-testid="summary">
      <summary title={ended}>{said || texts.stages.label}</summary>
      <ol className="stages" aria-label={texts.stages.label}>
        {stages.map((stage) => (
          <Stage key={stage.name} stage={stage} onOpenSources={abstained ? undefined : onOpenSources} />
        ))}
      </ol>
    </details>
  )
}

const ICONS: Record<StageState['state'], typeof CheckIcon | typeof Pulse> = { active: Pulse, done: CheckIcon, stopped: StopIcon }

function Stage({ stage, onOpenSources }: { stage: StageState; onOpenSources?: (() => void) | undefined }) {
  const Icon = ICONS[stage.state]
  const words = texts.stages.name(stage.name)
  const label = stage.state === 'done' ? words.done(stage) : words.active
  return (
    <li className="stage" data-testid={`stage-${stage.name}`} data-state={stage.state}>
      <Icon />
      {onOpenSources && stage.sources ? (
        <button type="button" className="quiet" onClick={onOpenSources}>
          {label}
        </button>
      ) : (
        <span>{label}</span>
      )}
      {stage.duration_ms != null && <span className="duration">{duration(stage.duration_ms)}</span>}
      {stage.degraded && <span className="degraded">{stage.degraded}</span>}
    </li>
  )
}
