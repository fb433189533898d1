"""The chat model that a name stands for: `extractive`, `scripted?…`, else what `init_chat_model` takes."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.runnables import RunnableConfig
from langgraph.constants import TAG_NOSTREAM

from graph.citations import Cited
from graph.offline_models import RECITED, Extractive, Scripted

READING_PACE_MS = 35
EXTRACTIVE = {"pace_ms": READING_PACE_MS}
SCRIPTED = {"tokens": 200, "delay_ms": 10, "stage_ms": 0, "stamp": 0}


class Opened(NamedTuple):
    """`writes`: it composes text of its own; a model that does not is given finished texts to recite.
    `router`: the same provider's model as it is asked where a message should go, at temperature 0."""

    model: BaseChatModel
    name: str
    writes: bool = True
    router: BaseChatModel | None = None


class Spoken(NamedTuple):
    content: str
    usage: UsageMetadata | None


class Piece(NamedTuple):
    """Of an answer, as it is said. `recited`: by no model, whose first piece is still to come, if any."""

    text: str
    recited: bool


Hear = Callable[[Piece], Awaitable[None]]
# Who hears what the nodes of this task's graph say. LangGraph's `messages` would put a queue between the model and the
# log, a task that waits for each piece, and a second task around each node.
hearing: ContextVar[Hear | None] = ContextVar("hearing", default=None)


def open_model(name: str, pace_ms: int | None = None) -> Opened:
    """Raises ValueError with a sentence that says what is wrong and what is allowed."""
    kind, _, query = name.partition("?")
    if kind == "extractive":
        pace = options(name, query, EXTRACTIVE)["pace_ms"]
        return Opened(Extractive(pace_ms=pace if "pace_ms" in query or pace_ms is None else pace_ms), kind, False)
    if kind == "scripted":
        said = options(name, query, SCRIPTED)
        model = Scripted(pace_ms=said["delay_ms"], tokens=said["tokens"], stamp=bool(said["stamp"]))
        return Opened(model, kind)
    return Opened(Cited(inner=_provider(name)), name, router=_provider(name, temperature=0))


def script(name: str) -> dict[str, int] | None:
    """The options of a scripted model; None for every other model."""
    kind, _, query = name.partition("?")
    return options(name, query, SCRIPTED) if kind == "scripted" else None


def options(name: str, query: str, defaults: dict[str, int]) -> dict[str, int]:
    """The whole numbers of a query string over their defaults."""
    given = parse_qsl(query, keep_blank_values=True)
    if query and "&".join(f"{key}={value}" for key, value in given) != query:
        raise ValueError(f"{name!r}: after '?' come options such as {_example(defaults)}")
    for key, value in given:
        if key not in defaults:
            raise ValueError(f"{name!r}: unknown option {key!r}; allowed are {', '.join(defaults)}")
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"{name!r}: {key}={value} must be a whole number, 0 or more, as in {_example(defaults)}")
    return defaults | {key: int(value) for key, value in given}


def _example(defaults: dict[str, int]) -> str:
    return "&".join(f"{key}={value}" for key, value in defaults.items())


def _provider(name: str, **options: Any) -> BaseChatModel:
    from langchain.chat_models import init_chat_model

    try:
        if not name:
            raise ValueError("it has no name")
        model = init_chat_model(name, **options)
        # Tries again by itself, where we must not: after the first token, or for longer than anyone waits.
        if "max_retries" not in type(model).model_fields:
            return cast(BaseChatModel, model)
        return cast(BaseChatModel, init_chat_model(name, max_retries=0, **options))
    except ImportError as error:
        raise ValueError(f"{name!r} needs a Python package that is not installed: {error}") from error
    except Exception as error:  # every provider raises types of its own, for a missing key too
        raise ValueError(
            f"{name!r} is no model that can be opened ({error}); it may be extractive, scripted?{_example(SCRIPTED)}, "
            "or provider:model as LangChain's init_chat_model takes it"
        ) from error


async def speak(model: BaseChatModel, messages: Sequence[BaseMessage], shown: bool = True) -> Spoken:
    """Streams the model to who hears it, and to LangGraph's `messages`, unless told not to; gives the same text whole.
    It says the next piece when the one before was heard: who hears may take his time, or end it by an error."""
    config: RunnableConfig = {} if shown else {"tags": [TAG_NOSTREAM]}
    hear = hearing.get() if shown else None
    recited = RECITED in (model.tags or ())
    pieces: list[str] = []
    usage: UsageMetadata | None = None
    async with aclosing(cast(AsyncGenerator[AIMessageChunk], model.astream(list(messages), config))) as said:
        async for chunk in said:
            if text := chunk.text:
                pieces.append(text)
                if hear is not None:
                    await hear(Piece(text, recited))
            if chunk.usage_metadata:
                usage = add_usage(usage, chunk.usage_metadata)
    return Spoken("".join(pieces), usage)
