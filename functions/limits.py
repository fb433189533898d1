"""How much one owner, and everybody together, may ask of Pulseline: turns by Postgres, open tails by process."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from fastapi.exceptions import RequestValidationError

from functions.settings import Settings
from graph.eventlog.errors import TooManyTurns
from graph.eventlog.log import Quota

LATER_SECONDS = 2


class RateLimited(Exception):
    """Too much at once; `detail` says of what, and it is worth trying again after `seconds`."""

    def __init__(self, detail: str, seconds: float = LATER_SECONDS) -> None:
        super().__init__(detail)
        self.detail, self.seconds = detail, max(1, math.ceil(seconds))


class Limits:
    """0 stands for no limit. Postgres counts the starts, over all replicas; those of one owner go one after the other
    already here, so that a crowd of them takes one connection, not all."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._quota = Quota(settings.max_turns_per_minute, settings.max_turns_per_owner)
        self._starting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tails: Counter[str] = Counter()
        self.tails = 0

    @asynccontextmanager
    async def starting(self, owner: str, message: str) -> AsyncIterator[Quota]:
        """In here the owner starts a turn, within the quota. A request that was sent before meets its turn, whatever
        the limits are."""
        if len(message) > self._settings.max_message_characters:
            raise _too_long(self._settings.max_message_characters)
        if not any(self._quota):
            yield self._quota
            return
        lock = self._starting.setdefault(owner, asyncio.Lock())
        async with lock:
            try:
                yield self._quota
            except TooManyTurns as error:
                raise self._limited(error) from None

    def _limited(self, error: TooManyTurns) -> RateLimited:
        if error.seconds is not None:
            return RateLimited(f"You may ask {self._quota.per_minute} times a minute.", error.seconds)
        return RateLimited(f"{error.active} of your questions are being answered; that is all at once.")

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
