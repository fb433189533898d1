"""What the adapters share: a turn as its events tell it, and requests made of another protocol's."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from functions.chat import start
from functions.contract import StartRequest
from functions.replica import Replica
from graph.eventlog.errors import BadCursor, TurnNotFound
from graph.eventlog.events import ENDS, Event, StreamEvent
from graph.eventlog.hub import Reader
from graph.eventlog.snapshot import Snapshot, fold


class Told(NamedTuple):
    """A turn as its session's `events` tell it. `reset_seq`: of its newest reset, 0 without one. `end` is its terminal
    event, None while it is under way."""

    session_id: UUID
    turn_id: UUID
    first_seq: int
    reset_seq: int
    begun: str
    end: StreamEvent | None
    status: str
    events: Sequence[Event]

    def before(self) -> Snapshot:
        """The conversation before it; a fold, so only for whoever shows it."""
        return fold(self.session_id, (event for event in self.events if event.seq < self.first_seq))


def tell(session_id: UUID, events: Sequence[Event], turn_id: UUID) -> Told:
    """Raises TurnNotFound."""
    mine = [event for event in events if event.turn_id == turn_id]
    if not mine:
        raise TurnNotFound
    return _tell(session_id, events, mine)


def tell_all(session_id: UUID, events: Sequence[Event]) -> list[Told]:
    """A session's turns, oldest first, in one pass."""
    turns: dict[UUID, list[Event]] = {}
    for event in events:
        turns.setdefault(event.turn_id, []).append(event)
    return [_tell(session_id, events, mine) for mine in turns.values()]


def _tell(session_id: UUID, events: Sequence[Event], mine: Sequence[Event]) -> Told:
    first, last = mine[0], mine[-1]
    end = last.parse() if last.type in ENDS else None
    status = last.type if end is not None else "queued" if len(mine) == 1 else "running"
    reset_seq = max((event.seq for event in mine if event.type == "reset"), default=0)
    return Told(session_id, first.turn_id, first.seq, reset_seq, first.parse().timestamp, end, status, events)


async def known_events(replica: Replica, owner: str, session_id: UUID) -> list[Event]:
    """A session's events, without the tokens of ended turns. Raises SessionNotFound."""
    events = await replica.log.own_events(session_id, owner)
    if not events:
        await replica.log.one(session_id, owner)
    return events


def newest(events: Sequence[Event]) -> UUID | None:
    return next((event.turn_id for event in reversed(events) if event.type == "turn_started"), None)


@contextmanager
def reading(replica: Replica, owner: str) -> Iterator[ExitStack]:
    """Counts a response among the owner's tails: before a turn starts, so that none runs that nobody may read."""
    with ExitStack() as watching:
        watching.enter_context(replica.limits.tail(owner))
        yield watching


async def watch(replica: Replica, owner: str, told: Told, watching: ExitStack, cursor: int = 0) -> Reader:
    """Reads the turn from its first event on; the client has had all up to `cursor`. Raises SessionNotFound, and
    BadCursor past the log's end."""
    watched = watching.enter_context(replica.hub.watch(told.session_id))
    gate = await replica.log.gate(told.session_id, owner)
    if cursor > gate.last_seq:
        raise BadCursor
    return replica.hub.reader(watched, gate.last_seq, told.first_seq - 1, active=gate.active)


async def begin(replica: Replica, owner: str, body: StartRequest) -> Told:
    """Starts the turn, or finds it when the request was sent before."""
    with ExitStack() as watching:
        turn, _ = await start(replica, owner, body, watching)
    return tell(turn.session_id, await replica.log.own_events(turn.session_id, owner), turn.turn_id)


async def stop(replica: Replica, owner: str, session_id: UUID, turn_id: UUID) -> None:
    await replica.log.cancel(session_id, owner, turn_id, "user_initiated")
    replica.ended(session_id)


def start_request(**fields: Any) -> StartRequest:
    """What is wrong with it is told as of a body of ours."""
    try:
        return StartRequest.model_validate(fields)
    except ValidationError as error:
        found = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors(include_url=False)]
        raise RequestValidationError(found) from None


def text_of(content: Any, field: str) -> str:
    """A message's text: a string, or blocks of text alone."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise unsupported(field, "only text can be sent")
    return "".join(text for text in texts if text)


def unsupported(field: str, reason: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body", field), "msg": reason, "type": "value_error"}])
