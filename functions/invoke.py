"""Where turns run in a Lambda function: whoever starts a turn, or sees that nobody goes on with one, calls it.

The call is a hint, for speed. The row in `turns` is the queue, and `sweep` finds what a lost call has left there.
"""

import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import cached_property
from typing import Any
from uuid import UUID

from functions.replica import Replica
from graph.eventlog.log import Candidate, Claimant, Log, Pool, Turn

logger = logging.getLogger(__name__)
CONNECT_SECONDS = 1
CALL_SECONDS = 3
CALLS_MAX = 2  # of which the second only when the first has failed
FRESH_SECONDS = 5.0  # the call for a turn that is younger may still be under way: a cold start takes so long


class Claimable(Log):
    async def claimable(self, session_id: UUID, fresh_seconds: float = 0) -> Candidate | None:
        """The session's turn, if it could be claimed now; one that nobody has begun yet only when it is older."""
        rows = await self._rows("claimable", session_id=session_id, fresh_seconds=fresh_seconds)
        return Candidate(**rows[0]) if rows else None


class Invoker:
    """Takes the worker's place in a replica. It waits for each call, because after the response this process may stand
    still; so it fits where a process serves one request at a time."""

    def __init__(self, pool: Pool, function: str) -> None:
        self._log, self._function = Claimable(pool), function

    @cached_property
    def _client(self) -> Any:
        import boto3  # type: ignore[import-untyped] # half of a cold start, and most requests need no call
        from botocore.config import Config  # type: ignore[import-untyped]

        limits = Config(
            connect_timeout=CONNECT_SECONDS, read_timeout=CALL_SECONDS, retries={"total_max_attempts": CALLS_MAX}
        )
        return boto3.client("lambda", config=limits)

    def call(self, session_id: UUID) -> bool:
        """Blocks until the call is queued; gives whether it was."""
        payload = json.dumps({"session_id": str(session_id)})
        try:
            self._client.invoke(FunctionName=self._function, InvocationType="Event", Payload=payload)
        except Exception as error:  # boto3 makes its classes at run time, and a hint may fail for any reason
            logger.warning("the function that runs turns was not called: %s", type(error).__name__)
            return False
        return True

    def starting(self, session_id: UUID, turn_id: UUID) -> AbstractContextManager[None]:
        """Nothing runs here."""
        return nullcontext()

    def started(self, turn: Turn, claimant: Claimant | None) -> bool:
        return self.call(turn.session_id)

    async def silent(self, session_id: UUID) -> None:
        """A turn that somebody had begun and left, or whose first call was lost."""
        if await self._log.claimable(session_id, FRESH_SECONDS) is not None:
            self.call(session_id)

    def holds(self, session_id: UUID) -> bool:
        """What it invokes runs elsewhere."""
        return False

    def queued(self) -> None: ...
    def grown(self, sessions: Iterable[UUID]) -> None: ...
    def notified(self, works: bool) -> None: ...
    async def drain(self, seconds: float) -> None: ...


@asynccontextmanager
async def open_invoker(replica: Replica) -> AsyncIterator[Invoker]:
    """Where the settings name the function, in place of `open_worker`."""
    assert replica.settings.run_function is not None
    replica.single = True
    yield Invoker(replica.log.pool, replica.settings.run_function)
