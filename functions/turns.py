"""`pulseline turns`: what is queued, runs or is stuck, and how an operator ends it."""

from collections.abc import Iterable
from typing import Literal, NamedTuple
from uuid import UUID

from rich.table import Table

from graph.eventlog.log import Ended, Log, open_pool

STUCK_SECONDS = 10.0  # so long claimable, and no worker took it
SHOWN_MAX = 1000
Reason = Literal["error", "timeout"]


class ActiveTurn(NamedTuple):
    """A turn that has not ended. `spent` counts its tries so far, `lease_seconds` what is left of its lease."""

    session_id: UUID
    turn_id: UUID
    status: Literal["queued", "running"]
    spent: int
    worker: str | None
    age_seconds: float
    lease_seconds: float | None

    @property
    def state(self) -> str:
        unclaimed_seconds = self.age_seconds if self.lease_seconds is None else -self.lease_seconds
        return "stuck" if unclaimed_seconds > STUCK_SECONDS else self.status


class _Operations(Log):
    async def active(self) -> list[ActiveTurn]:
        return [ActiveTurn(**row) for row in await self._rows("active_turns", limit=SHOWN_MAX)]

    async def wake(self, session_id: UUID) -> None:
        """The owner learns at once that it is fenced, and readers that there is an end; see eventlog/wakeups.py."""
        await self._rows("notify", payloads=[f"grown operator {session_id}"])


async def active(url: str) -> list[ActiveTurn]:
    """The oldest first, SHOWN_MAX at most."""
    async with open_pool(url, max_size=1) as pool:
        return await _Operations(pool).active()


async def cancel(url: str, session_id: UUID, turn_id: UUID | None, reason: Reason, *, notify: bool) -> Ended:
    """Takes the pen, whoever answers; without `turn_id` of the session's turn under way, else of its newest, which then
    says how it ended."""
    async with open_pool(url, max_size=1) as pool:
        log = _Operations(pool)
        ended = await log.cancel(session_id, None, turn_id, reason)
        if notify:
            await log.wake(session_id)
        return ended


def table(turns: Iterable[ActiveTurn]) -> Table:
    shown = Table("session", "turn", "state", "tries", "worker", "age", "lease left", box=None, pad_edge=False)
    for turn in turns:
        lease = "" if turn.lease_seconds is None else f"{turn.lease_seconds:.0f} s"
        shown.add_row(
            str(turn.session_id),
            str(turn.turn_id),
            turn.state,
            str(turn.spent),
            turn.worker or "",
            f"{turn.age_seconds:.0f} s",
            lease,
        )
    return shown
