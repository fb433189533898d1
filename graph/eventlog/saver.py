"""The checkpointer: LangGraph's AsyncPostgresSaver whose writes ride in the log's batches, under the turn's fence."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, cast
from uuid import UUID

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row

from graph.eventlog.log import Pool
from graph.eventlog.migrate import migrate
from graph.eventlog.writer import HeldTurn, Statement, Writer

READ_AGAIN_SECONDS = 0.25
DURABILITY = "__pregel_durability"  # langgraph._internal._constants.CONFIG_KEY_DURABILITY

held_turn: ContextVar[HeldTurn | None] = ContextVar("held_turn", default=None)
_recording: ContextVar[list[Statement] | None] = ContextVar("recording", default=None)


class _RecordingCursor:
    """Takes the place of the parent's cursor in aput and aput_writes, which read nothing back."""

    def __init__(self, statements: list[Statement]) -> None:
        self._statements = statements

    async def execute(self, statement: Any, parameters: Any = None) -> None:
        self._statements.append((statement, parameters, False))

    async def executemany(self, statement: Any, parameters: Sequence[Any]) -> None:
        if parameters:
            self._statements.append((statement, parameters, True))


class EventLogSaver(AsyncPostgresSaver):
    """Inside a held turn, `aput` and `aput_writes` commit with the turn's events in one transaction, or raise Fenced.

    Everywhere else it is the parent on the process's pool, without the parent's instance lock.
    """

    def __init__(self, pool: Pool, writer: Writer | None = None) -> None:
        super().__init__(pool)
        self._pool = pool
        self._writer = writer

    async def setup(self) -> None:
        """Migrates the session tables and LangGraph's own. Safe from many processes at once, and again."""
        await migrate(str(self._pool.conninfo), super().setup, len(self.MIGRATIONS))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A held turn reads what it has put, and asks again while the database is away: its deadlines end the wait."""
        turn = self._turn_of(config)
        while True:
            try:
                if turn is not None and turn.has_put and self._writer is not None:
                    await self._writer.flush(turn)
                    _check_puts(turn)
                return await super().aget_tuple(config)
            except (psycopg.OperationalError, psycopg.InterfaceError):
                if turn is None:
                    raise
                await asyncio.sleep(READ_AGAIN_SECONDS)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        async with self._riding(config):
            return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        async with self._riding(config, task_id):
            await super().aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Deletes the thread's checkpoints, and its turns and events with them."""
        await super().adelete_thread(thread_id)
        await self._delete_events([thread_id])

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As the parent; `delete` takes the events along. `keep_latest` leaves the log alone: it is the truth."""
        await super().aprune(thread_ids, strategy=strategy)
        if strategy == "delete":
            await self._delete_events(thread_ids)

    async def _delete_events(self, thread_ids: Sequence[str]) -> None:
        sessions = [thread_id for thread_id in map(str, thread_ids) if _is_uuid(thread_id)]
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute("delete from turns where session_id = any(%s::uuid[])", [sessions])
            await connection.execute("delete from events where session_id = any(%s::uuid[])", [sessions])

    @asynccontextmanager
    async def _riding(self, config: RunnableConfig, task_id: str = "") -> AsyncIterator[None]:
        """Records the parent's statements and hands them to the writer, when this is a write of the held turn.

        With durability "async" nobody waits for a checkpoint: LangGraph puts the next one only after this one, so that
        quick steps would leave their checkpoints several commits behind the events that tell their end.
        """
        turn = self._turn_of(config)
        if turn is None or self._writer is None:
            yield
            return
        _check_puts(turn)
        statements: list[Statement] = []
        token = _recording.set(statements)
        try:
            yield
        finally:
            _recording.reset(token)
        put = self._writer.hand_in(turn, statements, task_id)
        if task_id or config["configurable"].get(DURABILITY) != "async":
            await put
        else:
            put.add_done_callback(partial(_keep_failure, turn))

    def _turn_of(self, config: RunnableConfig) -> HeldTurn | None:
        turn = held_turn.get()
        return turn if turn is not None and config["configurable"]["thread_id"] == str(turn.session_id) else None

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        statements = _recording.get()
        if statements is not None:
            yield cast(AsyncCursor[DictRow], _RecordingCursor(statements))
            return
        async with self._pool.connection() as connection:
            if pipeline:
                async with connection.transaction(), connection.cursor(binary=True, row_factory=dict_row) as cursor:
                    yield cursor
            else:
                async with connection.cursor(binary=True, row_factory=dict_row) as cursor:
                    yield cursor


def _keep_failure(turn: HeldTurn, put: "asyncio.Future[None]") -> None:
    if not put.cancelled() and turn.put_failure is None:
        turn.put_failure = put.exception()


def _check_puts(turn: HeldTurn) -> None:
    if turn.put_failure is not None:
        raise turn.put_failure


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
