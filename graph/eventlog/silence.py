"""What readers ask who hear nothing: is the session still there, is a turn under way? Idle tabs are many: together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

TOGETHER_SECONDS = 0.02

Ask = Callable[[Sequence[UUID]], Awaitable[dict[UUID, bool]]]


class Silence:
    """`ask` is called once for all who come within TOGETHER_SECONDS."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._sessions: set[UUID] = set()
        self._asking: asyncio.Task[dict[UUID, bool]] | None = None

    async def active(self, session_id: UUID) -> bool | None:
        """Whether a turn is under way; None of a session that was erased. Raises what `ask` raises."""
        self._sessions.add(session_id)
        if self._asking is None:
            self._asking = asyncio.create_task(self._together(), name="silence")
            self._asking.add_done_callback(_read)
        found = await asyncio.shield(self._asking)
        return found.get(session_id)

    async def _together(self) -> dict[UUID, bool]:
        await asyncio.sleep(TOGETHER_SECONDS)
        sessions, self._sessions, self._asking = list(self._sessions), set(), None
        return await self._ask(sessions)


def _read(task: "asyncio.Task[dict[UUID, bool]]") -> None:
    """Those who waited have its failure; perhaps they have all gone."""
    if not task.cancelled():
        task.exception()
