import { seconds, texts } from '../texts'
import type { Message, StageState } from '../types/streaming'
import { CheckIcon, Pulse } from './Icons'

// What is still to come is known for the product's own agents only.
const AHEAD: Record<string, readonly string[]> = {
  rag_agent: ['retrieval', 'reranking', 'generation'],
  emotional_support: ['generation'],
}

interface StagesProps {
  agent: Message['agent']
  stages: readonly StageState[]
  onOpenSources?: (() => void) | undefined
}

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
        <Stage key={stage.name} stage={stage} onOpenSources={stage.sources ? onOpenSources : undefined} />
      ))}
      {ahead.map((name) => (
        <li key={name} className="stage" data-testid={`stage-${name}`} data-state="pending">
          <span className="mark" /> {texts.stages.name(name).waiting}
        </li>
      ))}
    </ol>
  )
}

function Stage({ stage, onOpenSources }: { stage: StageState; onOpenSources?: (() => void) | undefined }) {
  const words = texts.stages.name(stage.name)
  const label = stage.state === 'done' ? words.done(stage) : words.active
  return (
    <li className="stage" data-testid={`stage-${stage.name}`} data-state={stage.state}>
      {stage.state === 'done' ? <CheckIcon /> : <Pulse />}
      {onOpenSources ? (
        <button type="button" className="quiet" onClick={onOpenSources}>
          {label}
        </button>
      ) : (
        <span>{label}</span>
      )}
      {stage.duration_ms != null && <span className="duration">{seconds(stage.duration_ms)}</span>}
      {stage.degraded && <span className="degraded">{stage.degraded}</span>}
    </li>
  )
}
