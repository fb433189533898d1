"""A connection to Postgres on which nobody waits for ever."""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection

# Whoever holds a turn's row for longer may be frozen: then the other turns go on without that one, which goes again
# when its row is seen to be free, or tries by itself.
LOCK_PATIENCE, LOCK_PATIENCE_ALONE = "250ms", "5ms"
# A process that is frozen between two statements must not hold a turn's row for longer. In mid-pipeline only
# Postgres 17 and newer can end its transaction.
FROZEN_SECONDS = 5
TRANSACTION_TIMEOUT_SINCE = 170_000
ANSWER_SECONDS = 10.0
CANCEL_SECONDS = 1.0
# A server that is gone without a word is given up after some ten seconds, whether it owes us an answer or an ACK.
SILENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


async def bound(connection: AsyncConnection[Any], *, pipeline: bool = False) -> None:
    """The first statement of a transaction that locks rows: should this process freeze, Postgres ends it."""
    if not pipeline:
        await connection.execute(f"set local idle_in_transaction_session_timeout = '{FROZEN_SECONDS}s'")
    elif connection.info.server_version >= TRANSACTION_TIMEOUT_SINCE:
        await connection.execute(f"set local transaction_timeout = '{FROZEN_SECONDS}s'")


class Connection(AsyncConnection[Any]):
    """A statement that has no answer after ANSWER_SECONDS fails as if the connection had broken: a proxy may
    acknowledge every byte, keepalives too, and forward none."""

    _giving_up: asyncio.Task[None] | None = None

    async def wait(self, *arguments: Any, **settings: Any) -> Any:
        """Everything that is asked of the server once it is connected; a timer is the cheapest limit."""
        timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._begin_to_give_up)
        try:
            return await super().wait(*arguments, **settings)
        finally:
            timer.cancel()
            if self._giving_up is not None:
                self._giving_up.cancel()
                await self.close()  # a cancel that comes late would hit the next statement

    def _begin_to_give_up(self) -> None:
        self._giving_up = asyncio.create_task(self._give_up())

    async def _give_up(self) -> None:
        """A server that can be reached cancels the statement, so that it does not stay there and wait for a lock.
        Whoever still waits then hears the end of the connection."""
        with suppress(psycopg.Error):
            await self.cancel_safe(timeout=CANCEL_SECONDS)
            await asyncio.sleep(CANCEL_SECONDS)
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)
