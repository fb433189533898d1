"""LangGraph's stream of `tasks`, and what its nodes say → events. Pure: takes values and the time, returns values."""

from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage

from graph.eventlog import events as e
from graph.eventlog.events import NewEvent, new_event, storable
from graph.models import Piece

ANSWERING = frozenset({"generate", "emergency", "emotional_support"})
QUIET = frozenset({"safety", "supervisor"})
REVIEWED_TEXT = "reviewed text"  # the "model" of an emergency answer


class Translator:
    """Of one attempt at one turn. `model` is the name that `generation_start` shows."""

    def __init__(self, turn_id: UUID, model: str, finished: frozenset[str] = frozenset()) -> None:
        self._turn_id, self._model, self._finished = turn_id, model, finished
        self._began: dict[str, float] = {}
        self.stage: str | None = None
        self.answered: dict[str, Any] | None = None
        self.recites = False

    def feed(self, mode: str, data: Any, now: float) -> list[NewEvent]:
        """`now` is in seconds, of any steady clock. A task that finished in an earlier attempt gives nothing."""
        if mode == "said":
            return self._token(data)
        if data["id"] in self._finished:
            return []
        if "input" in data:
            return self._start(data["id"], data["name"], now)
        return self._end(data, now)

    def _token(self, said: Piece) -> list[NewEvent]:
        self.recites = said.recited
        return [NewEvent("token", {"content": storable(said.text)})]

    def _start(self, task_id: str, node: str, now: float) -> list[NewEvent]:
        self._began[task_id] = now
        if node in QUIET:
            return []
        event: e.StreamEvent
        if node == "retrieve":
            self.stage, event = "retrieval", e.RetrievalStart(turn_id=self._turn_id)
        elif node == "rerank":
            self.stage, event = "reranking", e.RerankingStart(turn_id=self._turn_id)
        elif node in ANSWERING:
            model = REVIEWED_TEXT if node == "emergency" else self._model
            self.stage, event = "generation", e.GenerationStart(turn_id=self._turn_id, model=model)
        else:
            self.stage, event = node, e.StageStart(turn_id=self._turn_id, stage=node)
        return [new_event(event)]

    def _end(self, data: dict[str, Any], now: float) -> list[NewEvent]:
        if data["error"] is not None or data["result"] is None:
            return []
        if data["name"] in ANSWERING:
            self.answered = data["result"]
        duration_ms = round(1000 * (now - self._began.get(data["id"], now)))
        event = self.completed(data["name"], data["result"], duration_ms)
        return [new_event(event)._replace(task=data["id"])] if event is not None else []

    def completed(self, node: str, result: dict[str, Any], duration_ms: int) -> e.StreamEvent | None:
        """The event that a node's result brings, also one that an earlier attempt stored and had no time to say."""
        turn_id = self._turn_id
        if node in QUIET:
            return e.Routed(turn_id=turn_id, agent=result["agent"]) if result.get("agent") else None
        if node in ANSWERING:
            return None
        if node == "retrieve":
            return e.RetrievalComplete(
                turn_id=turn_id,
                passages=len(result["passages"]),
                duration_ms=duration_ms,
                degraded=result.get("retrieval_degraded"),
            )
        if node == "rerank":
            return e.RerankingComplete(
                turn_id=turn_id,
                sources=[e.Source.model_validate(source) for source in result["sources"]],
                duration_ms=duration_ms,
                degraded=result.get("reranking_degraded"),
            )
        return e.StageComplete(turn_id=turn_id, stage=node, duration_ms=duration_ms)


def done(turn_id: UUID, values: dict[str, Any], duration_ms: int) -> NewEvent:
    """The end of a turn whose graph has finished; `values`: what its last step gave, or the graph's last state."""
    answer = next(m for m in reversed(values["messages"]) if isinstance(m, AIMessage))
    usage = answer.usage_metadata
    message = e.AnswerMessage(
        id=f"{turn_id}:assistant",
        content=storable(answer.text),
        citations=[e.Citation.model_validate(citation) for citation in values.get("citations") or []],
    )
    return new_event(
        e.Done(
            turn_id=turn_id,
            message=message,
            abstained=bool(values.get("abstained")),
            usage=e.Usage(input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"])
            if usage
            else e.Usage(),
            duration_ms=duration_ms,
        )
    )
