"""The checkpointer: LangGraph's AsyncPostgresSaver whose writes ride in the log's batches, under the turn's fence."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, cast
from uuid import UUID

import orjson
import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncCursor, Cursor
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from graph.eventlog.connection import bound
from graph.eventlog.log import Pool
from graph.eventlog.migrate import migrate
from graph.eventlog.queries import query
from graph.eventlog.writer import HeldTurn, Statement, Writer

READ_AGAIN_SECONDS = 0.25
DURABILITY = "__pregel_durability"  # langgraph._internal._constants.CONFIG_KEY_DURABILITY

WRITES = ("thread_id", "ns", "id", "task_id", "task_path", "idx", "channel", "type")
OF_MANY = {  # LangGraph's statement for one row → ours for the rows of a batch, and what its values are but for bytes
    PostgresSaver.UPSERT_CHECKPOINTS_SQL: (
        "put_checkpoints",
        ("thread_id", "ns", "id", "parent", "checkpoint", "metadata"),
    ),
    PostgresSaver.UPSERT_CHECKPOINT_BLOBS_SQL: ("put_blobs", ("thread_id", "ns", "channel", "version", "type")),
    PostgresSaver.UPSERT_CHECKPOINT_WRITES_SQL: ("put_writes_again", WRITES),
    PostgresSaver.INSERT_CHECKPOINT_WRITES_SQL: ("put_writes", WRITES),
}

held_turn: ContextVar[HeldTurn | None] = ContextVar("held_turn", default=None)


class _RecordingCursor:
    """Takes the place of a saver's cursor in put and put_writes, which read nothing back. Of the statements that are
    known the rows are kept, so that those of a whole batch go in one."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []

    def execute(self, statement: Any, parameters: Any = None) -> None:
        self.executemany(statement, [parameters])

    def executemany(self, statement: Any, parameters: Sequence[Any]) -> None:
        if statement not in OF_MANY:
            self.statements.extend((statement, row, False) for row in parameters)
        elif parameters:
            name, columns = OF_MANY[statement]
            self.statements.append((query(name), [_row(columns, values) for values in parameters], True))


class _Recorder(PostgresSaver):
    """LangGraph's saver without a database: `put` and `put_writes` give their statements.

    Not the parent of EventLogSaver, for that one hands every value to a thread to be encoded: of a state as small as a
    conversation's the hop costs more than the encoding (13 % of the CPU of a turn, measured).
    """

    def __init__(self, serde: Any) -> None:
        super().__init__(cast(Any, None), serde=serde)
        self.cursor = _RecordingCursor()

    @contextmanager
    def _cursor(self, *, pipeline: bool = False) -> Iterator[Cursor[DictRow]]:
        yield cast("Cursor[DictRow]", self.cursor)


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
        if turn is not None and turn.fresh and not turn.has_put:
            return None
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
        """With durability "async" nobody waits for a checkpoint: LangGraph puts the next one only after this one, so
        that quick steps would leave their checkpoints several commits behind the events that tell their end."""
        turn = self._turn_of(config)
        if turn is None:
            return await super().aput(config, checkpoint, metadata, new_versions)
        recorder = _Recorder(self.serde)
        next_config = recorder.put(config, checkpoint, metadata, new_versions)
        put = self._hand_in(turn, recorder)
        if config["configurable"].get(DURABILITY) == "async":
            put.add_done_callback(partial(_keep_failure, turn))
        else:
            await put
        return next_config

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        turn = self._turn_of(config)
        if turn is None:
            await super().aput_writes(config, writes, task_id, task_path)
            return
        recorder = _Recorder(self.serde)
        recorder.put_writes(config, writes, task_id, task_path)
        await self._hand_in(turn, recorder, task_id)

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
            await bound(connection)
            await connection.execute("delete from turns where session_id = any(%s::uuid[])", [sessions])
            await connection.execute("delete from events where session_id = any(%s::uuid[])", [sessions])

    def _hand_in(self, turn: HeldTurn, recorder: _Recorder, task_id: str = "") -> "asyncio.Future[None]":
        assert self._writer is not None
        _check_puts(turn)
        return self._writer.hand_in(turn, recorder.cursor.statements, task_id)

    def _turn_of(self, config: RunnableConfig) -> HeldTurn | None:
        """The held turn, when this is a checkpoint of its own session."""
        turn = held_turn.get()
        if turn is None or self._writer is None or config["configurable"]["thread_id"] != str(turn.session_id):
            return None
        return turn

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        async with self._pool.connection() as connection:
            if pipeline:
                async with connection.transaction(), connection.cursor(binary=True, row_factory=dict_row) as cursor:
                    await bound(connection)
                    yield cursor
            else:
                async with connection.cursor(binary=True, row_factory=dict_row) as cursor:
                    yield cursor


def _row(columns: Sequence[str], values: Sequence[Any]) -> tuple[Any, ...]:
    """One text of the values that have a name, and the others as they are."""
    named = dict(zip(columns, values, strict=False))
    try:
        text = orjson.dumps(named, default=_unwrapped, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # such as a number of more than 64 bits
        text = json.dumps(named, default=_unwrapped)
    return (text, *values[len(columns) :])


def _unwrapped(value: Any) -> Any:
    if isinstance(value, Jsonb):
        return value.obj
    raise TypeError(f"a checkpoint's {type(value).__name__} is not JSON")


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
