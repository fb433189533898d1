"""A person's sessions: list, rename, erase, judge. Every statement filters by owner."""

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from graph.eventlog import errors
from graph.eventlog.log import Log, Row
from graph.eventlog.queries import query


class Sessions(Log):
    async def page(self, owner: str, search: str, before: tuple[datetime, UUID] | None, limit: int) -> list[Row]:
        """Newest first; `before` is (updated_at, session_id) of the last row of the page before."""
        moment, session_id = before or (None, None)
        return await self._rows("sessions", owner=owner, query=search, before=moment, before_id=session_id, limit=limit)

    async def threads(
        self, owner: str, ids: list[UUID] | None, status: str | None, limit: int | None, offset: int
    ) -> list[Row]:
        """Of each session its id and `status`: idle, busy, interrupted or error. Newest first."""
        return await self._rows("threads", owner=owner, ids=ids, status=status, limit=limit, offset=offset)

    async def make(self, session_id: UUID, owner: str) -> Row:
        """A session in which nothing has been said yet; an old one as it is. Raises SessionNotFound."""
        await self._owned("start_session", session_id=session_id, owner=owner, title="", owner_hash=None)
        return await self.one(session_id, owner)

    async def one(self, session_id: UUID, owner: str) -> Row:
        """Its title and times. Raises SessionNotFound."""
        rows = await self._rows("session", session_id=session_id, owner=owner)
        if not rows:
            raise errors.SessionNotFound
        return rows[0]

    async def rename(self, session_id: UUID, owner: str, title: str) -> None:
        await self._owned("rename_session", session_id=session_id, owner=owner, title=title)

    async def erase(self, session_id: UUID, owner: str, age_seconds: float | None = None) -> None:
        """Deletes log, turns, checkpoints and feedback. A tombstone stays, so that seq never starts again at 1.

        With `age_seconds` only if nothing was asked there for so long, else SessionNotFound.
        """
        parameters = {"session_id": session_id, "owner": owner, "age_seconds": age_seconds}
        async with self._transaction() as connection:
            found = await (await connection.execute(query("erase_session"), parameters)).fetchone()
            if found is None:
                raise errors.SessionNotFound
            await connection.execute(query("lock_turns"), parameters)
            await connection.execute(query("erase_rows"), parameters)

    async def erase_older(self, age_seconds: float, limit: int) -> int:
        """Erases up to `limit` sessions in which nothing was asked for so long; gives how many."""
        rows = await self._rows("expired_sessions", age_seconds=age_seconds, limit=limit)
        for row in rows:
            with suppress(errors.SessionNotFound):  # its owner was faster, and erased it or asked something
                await self.erase(row["session_id"], row["owner"], age_seconds)
        return len(rows)

    async def judge(self, session_id: UUID, owner: str, turn_id: UUID, value: int, comment: str | None) -> None:
        await self._owned(
            "give_feedback", session_id=session_id, owner=owner, turn_id=turn_id, value=value, comment=comment
        )

    async def _owned(self, statement: str, /, **parameters: Any) -> None:
        if not await self._rows(statement, **parameters):
            raise errors.SessionNotFound
