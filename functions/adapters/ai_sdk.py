"""What Vercel's AI SDK asks of a chat server: the UI message stream, resumed from the start or from a chunk's index.

`DefaultChatTransport` (ai 6 and 7, `useChat`) and `WorkflowChatTransport` work unchanged.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4, uuid5

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel

from functions.adapters import runs
from functions.adapters.ai_sdk_frames import ChatWire, Chunks
from functions.adapters.runs import Told, start_request, tell, text_of, unsupported
from functions.auth import Owner
from functions.chat import REFUSALS, SESSIONS_NAMESPACE
from functions.contract import REQUEST_ID_MAX_CHARACTERS
from functions.replica import Replica, Serving
from functions.tail import TailResponse
from graph.eventlog.errors import NotTheLastTurn, TurnNotFound
from graph.eventlog.events import Event, TurnStarted

STREAM_HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
RESETS_SINCE = 7  # AI SDK's major version
PAGE_EVENTS = 1000
Json = dict[str, Any]
Version = Annotated[int, Header(alias="x-ai-sdk-version", description="7: the client knows reset-step")]
router = APIRouter(prefix="/api/chat", tags=["AI SDK"], responses=REFUSALS)


class UIMessage(BaseModel):
    id: str | None = None
    role: Literal["user", "assistant", "system"]
    parts: list[Json] = []


class ChatRequest(BaseModel):
    """Only the last message is read: those before it are in the log. Other fields are a client's own."""

    id: str
    messages: list[UIMessage] = []
    message: UIMessage | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    messageId: str | None = None
    command: Json | None = None


def session_of(owner: str, chat_id: str) -> UUID:
    """A chat's id is any text: of one that is no UUID a session is derived, as of a request's."""
    try:
        return UUID(chat_id)
    except ValueError:
        return uuid5(SESSIONS_NAMESPACE, f"{owner}\nchat\n{chat_id}")


@router.post("", response_class=Response)
async def send(body: ChatRequest, owner: Owner, replica: Serving, version: Version = 6) -> Response:
    """Starts a turn, or finds that of the same message; a message that was edited, or an answer that is to be written
    again, takes the last turn's place."""
    session_id = session_of(owner, body.id)
    events = await replica.log.own_events(session_id, owner)
    fields: Json = {"session_id": session_id, **_which(body, events)}
    if body.command is not None:
        request = start_request(**fields, command=body.command)
    else:
        request = start_request(**fields, message=_question(body))
    told = await runs.begin(replica, owner, request)
    return await _stream(replica, owner, told, 0, version, {"x-workflow-run-id": f"{session_id}.{told.turn_id}"})


def _question(body: ChatRequest) -> str:
    asked = body.message or next((message for message in reversed(body.messages) if message.role == "user"), None)
    if asked is None:
        raise unsupported("messages", "there is no message of a user")
    return text_of([part for part in asked.parts if not part.get("type", "").startswith("data-")], "messages")


def _which(body: ChatRequest, events: Sequence[Event]) -> Json:
    """The message's id is the request's, so that it may be sent again."""
    last = body.message or (body.messages[-1] if body.messages else None)
    if body.trigger == "submit-message" and body.messageId is None:
        known = last.id if last and last.id and len(last.id) <= REQUEST_ID_MAX_CHARACTERS else None
        return {"request_id": known or str(uuid4())}
    replaces = runs.newest(events)
    if replaces is None or body.messageId not in (None, *_ids(replaces, events)):
        raise NotTheLastTurn
    return {"request_id": str(uuid4()), "replaces": replaces}


def _ids(turn_id: UUID, events: Sequence[Event]) -> set[str]:
    """What a client may call the two messages of this turn."""
    started = next(event.parse() for event in events if event.turn_id == turn_id)
    asked = started.request_id if isinstance(started, TurnStarted) else ""
    return {f"{turn_id}:assistant", f"{turn_id}:user", asked}


@router.get("/{chat_id}/stream", response_class=Response, responses={204: {"description": "no answer is under way"}})
async def resume(
    chat_id: str,
    owner: Owner,
    replica: Serving,
    startIndex: int = 0,
    version: Version = 6,
) -> Response:
    """The answer under way, from its start; 204 when there is none. Of a run (what `x-workflow-run-id` said) also one
    that has ended, from its `startIndex`-th chunk on; a negative one counts from the newest."""
    run = _run_of(chat_id)
    if run is None:
        return await _under_way(replica, owner, session_of(owner, chat_id), version)
    session_id, turn_id = run
    told = tell(session_id, await runs.known_events(replica, owner, session_id), turn_id)
    newest = await _count(replica, told, version) if startIndex < 0 else 0
    start = startIndex if startIndex >= 0 else max(0, newest + startIndex)
    tail = {"x-workflow-stream-tail-index": str(newest - 1)} if startIndex < 0 else {}
    return await _stream(replica, owner, told, start, version, tail)


def _run_of(chat_id: str) -> tuple[UUID, UUID] | None:
    """What `x-workflow-run-id` says: session and turn."""
    session, _, turn = chat_id.partition(".")
    try:
        return UUID(session), UUID(turn)
    except ValueError:
        return None


async def _under_way(replica: Replica, owner: str, session_id: UUID, version: int) -> Response:
    events = await replica.log.own_events(session_id, owner)
    turn_id = runs.newest(events)
    told = tell(session_id, events, turn_id) if turn_id else None
    if told is None or told.end is not None:
        return Response(status_code=204)
    return await _stream(replica, owner, told, 0, version, {})


@router.post("/{chat_id}/stop", status_code=204)
async def stop(chat_id: str, owner: Owner, replica: Serving) -> Response:
    """A disconnect stops nothing. What was said so far is kept."""
    session_id, turn_id = _run_of(chat_id) or (session_of(owner, chat_id), None)
    turn_id = turn_id or runs.newest(await runs.known_events(replica, owner, session_id))
    if turn_id is None:
        raise TurnNotFound
    await runs.stop(replica, owner, session_id, turn_id)
    return Response(status_code=204)


async def _count(replica: Replica, told: Told, version: int) -> int:
    """How many chunks there are so far."""
    chunks, count, cursor = Chunks(told, resets=version >= RESETS_SINCE), 0, told.first_seq - 1
    while page := await replica.log.read({told.session_id: cursor}, PAGE_EVENTS):
        count += sum(len(chunks.feed(event.seq, event.parse())) for event in page if event.turn_id == told.turn_id)
        cursor = page[-1].seq
    return count


async def _stream(
    replica: Replica, owner: str, told: Told, start: int, version: int, headers: dict[str, str]
) -> Response:
    with ExitStack() as watching:
        reader = await runs.watch(replica, owner, told, watching)
        wire = ChatWire(told, start, resets=version >= RESETS_SINCE)
        return TailResponse(replica, reader, owner, "turn", watching.pop_all(), {**STREAM_HEADERS, **headers}, wire)
