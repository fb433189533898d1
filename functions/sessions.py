"""A person's sessions: list, snapshot, rename, erase, judge an answer."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.exceptions import RequestValidationError

from functions.auth import Owner
from functions.contract import Feedback, Problem, SessionItem, SessionPage, TitleChange
from functions.replica import Serving
from graph.eventlog.snapshot import Snapshot

PAGE_SESSIONS = 50
router = APIRouter(prefix="/sessions")
REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (401, 403, 404, 413, 415, 422, 500, 503)
}


@router.get("", responses=REFUSALS)
async def page(
    owner: Owner,
    replica: Serving,
    query: Annotated[str, Query(max_length=200)] = "",
    before: Annotated[str | None, Query(max_length=100, description="`next` of the page before")] = None,
) -> SessionPage:
    rows = await replica.log.page(owner, query.replace("\x00", ""), _position(before), PAGE_SESSIONS + 1)
    items = [SessionItem.model_validate(row) for row in rows[:PAGE_SESSIONS]]
    more = len(rows) > PAGE_SESSIONS
    return SessionPage(
        sessions=items, next=f"{items[-1].updated_at.isoformat()}_{items[-1].session_id}" if more else None
    )


def _position(before: str | None) -> tuple[datetime, UUID] | None:
    if before is None:
        return None
    moment, _, session_id = before.partition("_")
    try:
        return datetime.fromisoformat(moment), UUID(session_id)
    except ValueError:
        message = "take it from `next` of the page before"
        raise RequestValidationError([{"loc": ("query", "before"), "msg": message, "type": "value_error"}]) from None


@router.get("/{session_id}", responses=REFUSALS)
async def snapshot(session_id: UUID, owner: Owner, replica: Serving) -> Snapshot:
    """Text so far, stage and sources of one instant; tail on after `last_seq`."""
    return await replica.log.snapshot(session_id, owner)


@router.patch("/{session_id}", status_code=204, responses=REFUSALS)
async def rename(session_id: UUID, body: TitleChange, owner: Owner, replica: Serving) -> Response:
    await replica.log.rename(session_id, owner, body.title)
    return Response(status_code=204)


@router.delete("/{session_id}", status_code=204, responses=REFUSALS)
async def erase(session_id: UUID, owner: Owner, replica: Serving) -> Response:
    """Erases log, turns, checkpoints and feedback for good. A running answer ends with it."""
    await replica.log.erase(session_id, owner)
    replica.ended(session_id)
    replica.hub.wake(session_id)
    return Response(status_code=204)


@router.put("/{session_id}/turns/{turn_id}/feedback", status_code=204, responses=REFUSALS)
async def feedback(session_id: UUID, turn_id: UUID, body: Feedback, owner: Owner, replica: Serving) -> Response:
    await replica.log.judge(session_id, owner, turn_id, body.value, body.comment)
    return Response(status_code=204)
