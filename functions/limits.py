"""How much one owner, and everybody together, may ask of Pulseline: turns by Postgres, open tails by process."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID
from weakref import WeakValueDictionary

from fastapi.exceptions import RequestValidationError

from functions.settings import Settings
from graph.eventlog.log import Log, Pool

MINUTE_SECONDS = 60
LATER_SECONDS = 2


class RateLimited(Exception):
    """Too much at once; `detail` says of what, and it is worth trying again after `seconds`."""

    def __init__(self, detail: str, seconds: float = LATER_SECONDS) -> None:
        super().__init__(detail)
        self.detail, self.seconds = detail, max(1, math.ceil(seconds))


class _Usage(Log):
    async def usage(self, owner: str, session_id: UUID, request_id: str, limit: int) -> tuple[bool, int, float | None]:
        """Whether this request has its turn already; how many turns of the owner have not ended; and, when `limit`
        turns were started in the last minute, in how many seconds there will be one less."""
        row = (
            await self._rows(
                "usage",
                owner=owner,
                session_id=session_id,
                request_id=request_id,
                limit=limit,
                window_seconds=MINUTE_SECONDS,
            )
        )[0]
        return row["known"], row["active"], row["seconds"]


class Limits:
    """0 stands for no limit. Starts of one owner go one after the other, so that none slips past the count here; each
    other replica may let one more in that it starts in the same instant."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._settings, self._usage = settings, _Usage(pool)
        self._starting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tails: Counter[str] = Counter()
        self.tails = 0

    @asynccontextmanager
    async def starting(self, owner: str, session_id: UUID, request_id: str, message: str) -> AsyncIterator[None]:
        """In here the owner starts a turn. A request that was sent before meets its turn, whatever the limits are."""
        if len(message) > self._settings.max_message_characters:
            raise _too_long(self._settings.max_message_characters)
        per_minute, at_once = self._settings.max_turns_per_minute, self._settings.max_turns_per_owner
        if not per_minute and not at_once:
            yield
            return
        lock = self._starting.setdefault(owner, asyncio.Lock())
        async with lock:
            known, active, seconds = await self._usage.usage(owner, session_id, request_id, per_minute)
            if not known and per_minute and seconds is not None:
                raise RateLimited(f"You may ask {per_minute} times a minute.", seconds)
            if not known and at_once and active >= at_once:
                raise RateLimited(f"{active} of your questions are being answered; that is all at once.")
            yield

    @contextmanager
    def tail(self, owner: str) -> Iterator[None]:
        """While a response of this owner stays open."""
        if self.tails >= self._settings.max_tails:
            raise RateLimited("Too many answers are being watched here.")
        if self._settings.max_tails_per_owner and self._tails[owner] >= self._settings.max_tails_per_owner:
            raise RateLimited(f"You may watch {self._settings.max_tails_per_owner} answers at once.")
        self._tails[owner] += 1
        self.tails += 1
        try:
            yield
        finally:
            self.tails -= 1
            self._tails[owner] -= 1
            if not self._tails[owner]:
                del self._tails[owner]


def _too_long(characters: int) -> RequestValidationError:
    message = f"String should have at most {characters} characters"
    return RequestValidationError([{"loc": ("body", "message"), "msg": message, "type": "string_too_long"}])
