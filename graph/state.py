"""What a turn knows while it runs. Plain JSON values and messages only, so that checkpoints need no classes of ours."""

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict, cast

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langgraph.graph.message import add_messages

TOKEN_BYTES = 4  # about what a token of English takes; of other scripts it takes fewer, and the history is shorter
MESSAGE_TOKENS = 4


class State(TypedDict, total=False):
    """`messages` is the conversation; everything else belongs to one turn and is reset by `turn_input`.

    question: what retrieval searches for: the user's message, joined with the one before it when it leans on that
    read_as: the question with its misspelt words mended, from retrieval on
    alarm: the red flag that ends the turn with an emergency text; "" when there is none
    urgent_topic: the red flag that is only asked about; the answer then says when to call for help
    warm: the question came with distress: the answer opens warmly
    library_empty: there was nothing to search
    passages: what was found, best first: id, document_id, title, url, score, text
    sources: dumps of events.Source, best first; `[n]` in the answer is the n-th, counted from 1
    evidence: the sources' sentences: source (as in `[n]`), order (within its source), text, score
    fit: how well the sources fit the question, about 0 to 1; None when nothing judged it
    citations: dumps of events.Citation
    """

    messages: Annotated[list[AnyMessage], add_messages]
    turn_id: str
    question: str
    read_as: str
    agent: str
    alarm: str
    urgent_topic: str
    warm: bool
    library_empty: bool
    passages: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    fit: float | None
    retrieval_degraded: str | None
    reranking_degraded: str | None
    citations: list[dict[str, Any]]
    abstained: bool


def turn_input(turn_id: str, message: str, earlier: Sequence[BaseMessage] = ()) -> State:
    """The graph's input for a new turn. `earlier` is what the checkpoint's messages lack, before this message."""
    return State(
        messages=cast(list[AnyMessage], [*earlier, HumanMessage(message, id=f"{turn_id}:user")]),
        turn_id=turn_id,
        question=message,
        read_as="",
        agent="",
        alarm="",
        urgent_topic="",
        warm=False,
        library_empty=False,
        passages=[],
        sources=[],
        evidence=[],
        fit=None,
        retrieval_degraded=None,
        reranking_degraded=None,
        citations=[],
        abstained=False,
    )


def recent(messages: Sequence[BaseMessage], tokens: int) -> list[BaseMessage]:
    """The newest messages that fit, by a rough count, and always the last; the first of them is the user's."""
    kept: list[BaseMessage] = []
    for message in reversed(messages):
        tokens -= len(message.text.encode()) // TOKEN_BYTES + MESSAGE_TOKENS
        if kept and tokens < 0:
            break
        kept.insert(0, message)
    while len(kept) > 1 and not isinstance(kept[0], HumanMessage):
        kept.pop(0)
    return kept


def user_message(state: State) -> str:
    """What the user said in this turn."""
    return next(message.text for message in reversed(state["messages"]) if isinstance(message, HumanMessage))
