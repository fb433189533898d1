"""GET /healthz: the process lives. GET /readyz: it can serve, and if not, which part cannot."""

from http import HTTPStatus
from typing import Any, Literal

import psycopg
from fastapi import APIRouter, Response
from pydantic import BaseModel

from functions.replica import Replica, Serving
from graph.eventlog.migrate import migrations

ASKED_SECONDS = 1.0
Part = Literal["database", "schema", "serving"]
router = APIRouter()


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """`parts`: `ok`, or what is the matter and, where one can say, what to do."""

    ready: bool
    parts: dict[Part, str]


async def healthz() -> Health:
    return Health()


async def readyz(replica: Serving, response: Response) -> Readiness:
    """The database answers and takes writes, it has this release's schema, and this replica is not on its way out."""
    database, schema = await _database(replica)
    parts: dict[Part, str] = {"database": database, "schema": schema}
    parts["serving"] = "draining: this replica is being stopped" if replica.hub.draining else "ok"
    ready = set(parts.values()) == {"ok"}
    response.status_code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(ready=ready, parts=parts)


async def _database(replica: Replica) -> tuple[str, str]:
    try:
        async with replica.log.pool.connection(timeout=ASKED_SECONDS) as connection:
            asked = await connection.execute("select current_setting('transaction_read_only') = 'on' as read_only")
            read_only = (await asked.fetchall())[0]["read_only"]
            rows = await (await connection.execute("select version from pulseline_migrations")).fetchall()
    except psycopg.errors.UndefinedTable:
        return "ok", "not made yet: run `pulseline migrate`"
    except (psycopg.Error, TimeoutError) as error:
        return f"does not answer ({type(error).__name__})", "not known"
    database = "takes no writes: `pulseline doctor` says how to mend it" if read_only else "ok"
    missing = {version for version, _, _ in migrations()} - {row["version"] for row in rows}
    return database, "too old: run `pulseline migrate`" if missing else "ok"


NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Readiness}}
for path, answer, statuses in (("/healthz", healthz, {}), ("/readyz", readyz, NOT_READY)):
    router.add_api_route(path, answer, methods=["GET"], responses=statuses)
    router.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)
