"""What Vercel's AI SDK asks of a chat server: the UI message stream, resumed from the start or from a chunk's index.

`DefaultChatTransport` (ai 6 and 7, `useChat`) and `WorkflowChatTransport` work unchanged.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4, uuid5

from fastapi import APIRouter, Header, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from functions.adapters import runs
from functions.adapters.ai_sdk_frames import ChatWire, Chunks
from functions.adapters.runs import Told, reading, start_request, tell, text_of, unsupported
from functions.auth import Owner
from functions.chat import REFUSALS, SESSIONS_NAMESPACE
from functions.contract import REQUEST_ID_MAX_CHARACTERS, Text
from functions.replica import Replica, Serving
from functions.tail import TailResponse
from graph.eventlog.errors import NotTheLastTurn, TurnNotFound
from graph.eventlog.events import Event, TurnStarted, storable

STREAM_HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
RESETS_SINCE = 7  # AI SDK's major version
PAGE_EVENTS = 1000
PARTS_MAX = 1000  # of one message
CHAT_ID = re.compile(r"[^/\\?#%\x00-\x1f\x7f]{1,200}")
Json = dict[str, Any]
Version = Annotated[int, Header(alias="x-ai-sdk-version", description="7: the client knows reset-step")]
router = APIRouter(prefix="/api/chat", tags=["AI SDK"], responses=REFUSALS)


class Part(BaseModel):
    model_config = ConfigDict(extra="allow")
    type: str
    text: str | None = None


class UIMessage(BaseModel):
    id: Text | None = None
    role: Literal["user", "assistant", "system"]
    parts: list[Part] = Field(default=[], max_length=PARTS_MAX)


def _addressable(chat_id: str) -> str:
    """Clients put it between slashes, as it is, to ask for its stream."""
    if not CHAT_ID.fullmatch(chat_id) or chat_id in (".", ".."):
        raise ValueError("it becomes a part of an address, so leave out / \\ ? # % and control characters")
    return chat_id


def _read(messages: Any) -> Any:
    """The last one of a user, and the last. Clients send them all: those before are in the log, and are not parsed."""
    if not isinstance(messages, list):
        return messages
    asked = (message for message in reversed(messages) if isinstance(message, dict) and message.get("role") == "user")
    last, question = messages[-1:], next(asked, None)
    return last if question is None or question is last[0] else [question, *last]


class ChatRequest(BaseModel):
    """Only the last message is read: those before it are in the log. Other fields are a client's own."""

    id: Annotated[str, AfterValidator(_addressable), AfterValidator(storable)]
    messages: Annotated[list[UIMessage], BeforeValidator(_read)] = []
    message: UIMessage | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    messageId: Text | None = None
    command: Json | None = None


def session_of(owner: str, chat_id: str) -> UUID:
    """Of a chat's id that is no UUID a session is derived, as of a request's."""
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
    with reading(replica, owner) as watching:
        told = await runs.begin(replica, owner, request)
        run = {"x-workflow-run-id": f"{session_id}.{told.turn_id}"}
        return await _stream(replica, owner, told, None, version, watching, run)


def _asked(body: ChatRequest) -> UIMessage | None:
    return body.message or next((message for message in reversed(body.messages) if message.role == "user"), None)


def _question(body: ChatRequest) -> str:
    asked = _asked(body)
    if asked is None:
        raise unsupported("messages", "there is no message of a user")
    said = [part.model_dump() for part in asked.parts if not part.type.startswith("data-")]
    return text_of(said, "messages")


def _which(body: ChatRequest, events: Sequence[Event]) -> Json:
    """The message's id is the request's, so that it may be sent again. A question that the log does not know was sent
    and did not arrive: whoever edits it, or asks again for its answer, sends it."""
    last = body.message or (body.messages[-1] if body.messages else None)
    if body.trigger == "submit-message" and body.messageId is None:
        return {"request_id": _request_id(last.id if last else None) or str(uuid4())}
    asked = _asked(body)
    named, question = _request_id(body.messageId), _request_id(asked.id if asked else None)
    starts = {start.turn_id: start for start in _starts(events)}
    if question and named in (None, question) and not any(question in _names(start) for start in starts.values()):
        return {"request_id": question}
    replaces = runs.newest(events)
    if replaces is None or not {named, question} <= {None, *_ids(replaces, starts)}:
        raise NotTheLastTurn
    return {"request_id": str(uuid4()), "replaces": replaces}


def _request_id(message_id: str | None) -> str | None:
    """A message's id, or one derived from it where it is too long for a request's."""
    if not message_id or len(message_id) <= REQUEST_ID_MAX_CHARACTERS:
        return message_id or None
    return str(uuid5(SESSIONS_NAMESPACE, message_id))


def _starts(events: Sequence[Event]) -> list[TurnStarted]:
    parsed = [event.parse() for event in events if event.type == "turn_started"]
    return [start for start in parsed if isinstance(start, TurnStarted)]


def _names(start: TurnStarted) -> set[str]:
    return {f"{start.turn_id}:assistant", f"{start.turn_id}:user", start.request_id}


def _ids(turn_id: UUID | None, starts: Mapping[UUID, TurnStarted]) -> set[str]:
    """What a client may call the two messages of this turn: a question that was edited, or answered again, keeps the
    id that it had first."""
    ids: set[str] = set()
    while turn_id is not None and turn_id in starts:
        ids |= _names(starts[turn_id])
        turn_id = starts[turn_id].replaces
    return ids


@router.get("/{chat_id}/stream", response_class=Response, responses={204: {"description": "no answer is under way"}})
async def resume(
    chat_id: str,
    owner: Owner,
    replica: Serving,
    startIndex: int | None = None,
    version: Version = 6,
) -> Response:
    """The answer under way, from its start; 204 when there is none. Who names a run (what `x-workflow-run-id` said), or
    has had chunks of the newest, gets one that has ended too, from its `startIndex`-th chunk on; a negative one counts
    from the newest."""
    with reading(replica, owner) as watching:
        told = await _asked_for(replica, owner, chat_id, startIndex)
        if told is None:
            return Response(status_code=204)
        start, headers = startIndex, {}
        if startIndex is not None and startIndex < 0:
            start = await _rewound(replica, told, startIndex, version)
            headers = {"x-workflow-stream-tail-index": str(start - 1 - startIndex)}
        return await _stream(replica, owner, told, start, version, watching, headers)


async def _asked_for(replica: Replica, owner: str, chat_id: str, start: int | None) -> Told | None:
    run = _run_of(chat_id)
    if run is not None:
        session_id, turn_id = run
        return tell(session_id, await runs.known_events(replica, owner, session_id), turn_id)
    session_id = session_of(owner, chat_id)
    events = await replica.log.own_events(session_id, owner)
    newest = runs.newest(events)
    told = tell(session_id, events, newest) if newest else None
    has_had_some = start is not None and start > 0
    return told if told and (told.end is None or has_had_some) else None


def _run_of(chat_id: str) -> tuple[UUID, UUID] | None:
    """What `x-workflow-run-id` says: session and turn."""
    session, _, turn = chat_id.partition(".")
    try:
        return UUID(session), UUID(turn)
    except ValueError:
        return None


@router.post("/{chat_id}/stop", status_code=204)
async def stop(chat_id: str, owner: Owner, replica: Serving) -> Response:
    """A disconnect stops nothing. What was said so far is kept."""
    session_id, turn_id = _run_of(chat_id) or (session_of(owner, chat_id), None)
    turn_id = turn_id or runs.newest(await runs.known_events(replica, owner, session_id))
    if turn_id is None:
        raise TurnNotFound
    await runs.stop(replica, owner, session_id, turn_id)
    return Response(status_code=204)


async def _rewound(replica: Replica, told: Told, back: int, version: int) -> int:
    """So many chunks before the newest, or where the step begins in which that lies: a client drops what belongs to a
    part whose start it was not sent."""
    chunks, kinds, cursor = Chunks(told, resets=version >= RESETS_SINCE, whole=True), list[str](), told.first_seq - 1
    while not chunks.finished and (page := await replica.log.read({told.session_id: cursor}, PAGE_EVENTS)):
        for event in page:
            if event.turn_id == told.turn_id:
                kinds += [chunk["type"] for chunk in chunks.feed(event.seq, event.parse())]
        cursor = page[-1].seq
    start = max(0, len(kinds) + back)
    begun = next((n for n in reversed(range(start)) if kinds[n] == "start-step"), None)
    return start if begun is None or "finish-step" in kinds[begun:start] else begun


async def _stream(
    replica: Replica,
    owner: str,
    told: Told,
    start: int | None,
    version: int,
    watching: ExitStack,
    headers: dict[str, str],
) -> Response:
    reader = await runs.watch(replica, owner, told, watching)
    wire = ChatWire(told, start, resets=version >= RESETS_SINCE)
    return TailResponse(replica, reader, "turn", watching.pop_all(), {**STREAM_HEADERS, **headers}, wire)
