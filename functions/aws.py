"""The handlers of Lambda: `api` behind an HTTP gateway, `run` for one turn, `sweep` on a schedule.

Between two invocations the process stands still, and any one may be its last. So nothing is left to a task that goes on
after the response, connections are opened by the first request, and whatever dies here is found by its lease.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from mangum import Mangum
from psycopg_pool import PoolTimeout
from starlette.types import Receive, Scope, Send

from functions import logs
from functions.app import create_app
from functions.errors import ERRORS, problem
from functions.invoke import Claimable, Invoker, open_invoker
from functions.replica import Replica, open_replica
from functions.settings import Settings
from functions.sweep import expire
from functions.sweep import sweep as prune
from graph.eventlog.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from functions.worker import Serve

WINDOW_SECONDS = 3.0  # a silent response; one with events ends at once
WINDOW_MARGIN_SECONDS = 2.0
POOL_SIZE = 4
HAND_BACK_SECONDS = 6.0  # before the time limit: for a model call to let go, and to give the turn back
SWEPT_MAX = 200
PRUNE_AGE_SECONDS = 24 * 3600


class Environment:
    """What one process keeps from one invocation to the next. `open_` gives it within its first invocation."""

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ValueError("DATABASE_URL must be set.")
        self.settings = settings.model_copy(update={"notify": "off", "worker": "off", "pool_size": POOL_SIZE})
        self.url = settings.database_url
        self.replica: Replica | None = None
        self._serve: Serve | None = None
        self._open = AsyncExitStack()  # never closed: nobody tells when the last invocation was

    async def open_(self, seconds: float) -> Replica:
        """`seconds` are what is left of the invocation: a response must have ended before."""
        if self.replica is None:
            window = min(self.settings.stream_window_seconds or WINDOW_SECONDS, seconds - WINDOW_MARGIN_SECONDS)
            settings = self.settings.model_copy(update={"stream_window_seconds": max(window, 0.1), "max_turns": 1})
            opener = open_invoker if settings.run_function else None
            self.replica = await self._open.enter_async_context(open_replica(settings, self.url, opener))
            self.replica.buffered = self.replica.single = True
        return self.replica

    async def serve(self, replica: Replica) -> "Serve":
        """Loaded once: the encoder of questions alone takes longer than a stage may."""
        if self._serve is None:
            from functions.worker import open_served  # with LangGraph, which the other handlers do without

            self._serve = await open_served(replica)
        return self._serve

    def run(self, coroutine: Any) -> Any:
        return asyncio.get_event_loop().run_until_complete(coroutine)


class Served:
    """The app without a lifespan."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._app = create_app(environment.settings, environment.url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._app.state.replica = await self._environment.open_(_seconds(scope["aws.context"]))
        except (psycopg.Error, PoolTimeout, DatabaseUnavailable) as error:
            logging.getLogger(__name__).warning("no database: %s", type(error).__name__)
            known = ERRORS[DatabaseUnavailable.code]
            await problem(known.status, DatabaseUnavailable.code, known.message)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _seconds(context: Any) -> float:
    return float(context.get_remaining_time_in_millis() / 1000)


def run(event: dict[str, Any], context: Any) -> dict[str, bool]:
    """Answers the turn of `session_id`, unless somebody does. Near the time limit it gives the turn back: the next call
    goes on from the checkpoint."""
    ran: bool = environment.run(_run(UUID(event["session_id"]), _seconds(context)))
    return {"ran": ran}


async def _run(session_id: UUID, seconds: float) -> bool:
    ends_at = asyncio.get_running_loop().time() + seconds
    replica = await environment.open_(seconds)
    candidate = await Claimable(replica.log.pool).claimable(session_id)
    if candidate is None:
        return False
    serve = await environment.serve(replica)
    from functions.worker import work

    async with work(replica, serve) as worker:
        await worker.take(candidate)
        await worker.drain(max(0.0, ends_at - asyncio.get_running_loop().time() - HAND_BACK_SECONDS))
    return True


def sweep(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Calls `run` for every turn that waits for a worker, removes the tokens of old ones, and erases the sessions that
    are older than RETENTION_DAYS, where that is set."""
    swept: dict[str, int] = environment.run(_sweep(_seconds(context)))
    return swept


async def _sweep(seconds: float) -> dict[str, int]:
    replica = await environment.open_(seconds)
    assert isinstance(replica.worker, Invoker), "PULSELINE_RUN_FUNCTION must be set."
    found = await replica.log.candidates(SWEPT_MAX)
    called = sum([replica.worker.call(candidate.session_id) for candidate in found])
    days = environment.settings.retention_days
    erased = 0 if days is None else await expire(replica.log, days)
    return {"called": called, "pruned": await prune(replica.log, PRUNE_AGE_SECONDS), "erased": erased}


environment = Environment(Settings())
logs.to_stderr(environment.settings)  # Lambda's own handler would write the text of errors
asyncio.set_event_loop(asyncio.new_event_loop())
api = Mangum(Served(environment), lifespan="off")
