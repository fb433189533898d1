"""What must be true after any faults, by the tables and by what readers kept. It uses nothing of the product's fold."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection

from tests.faults.people import Asked, Crowd
from tests.support.checker import ENDS, content_of

SAID_ONCE = ("turn_started", "routed", "retrieval_complete", "reranking_complete", *ENDS)
MAX_ATTEMPTS = 3

EVENTS = "select session_id::text, seq, turn_id::text, attempt, type, data::text from events order by session_id, seq"
TURNS = """
select session_id::text, turn_id::text, request_id, status, attempt, handed_back, first_seq, last_seq from turns
 order by session_id, first_seq
"""


class Row(NamedTuple):
    session_id: str
    seq: int
    turn_id: str
    attempt: int
    type: str
    data: str

    @property
    def content(self) -> str:
        return content_of(self.type, self.data)


class TurnRow(NamedTuple):
    session_id: str
    turn_id: str
    request_id: str
    status: str
    attempt: int
    handed_back: int
    first_seq: int
    last_seq: int | None


class Tables(NamedTuple):
    """`spoken`: of each session, role and text of the messages in its newest checkpoint."""

    rows: dict[str, list[Row]]
    turns: dict[str, list[TurnRow]]
    spoken: dict[str, list[tuple[str, str]]]

    def of(self, turn: TurnRow) -> list[Row]:
        return [row for row in self.rows[turn.session_id] if row.turn_id == turn.turn_id]


async def read_tables(url: str) -> Tables:
    async with await AsyncConnection.connect(url) as connection:
        events = [Row(*row) for row in await (await connection.execute(EVENTS)).fetchall()]
        turns = [TurnRow(*row) for row in await (await connection.execute(TURNS)).fetchall()]
    sessions = {turn.session_id for turn in turns}
    return Tables(
        {session: [row for row in events if row.session_id == session] for session in sessions},
        {session: [turn for turn in turns if turn.session_id == session] for session in sessions},
        {session: await _spoken(url, session) for session in sessions},
    )


async def _spoken(url: str, session: str) -> list[tuple[str, str]]:
    """LangGraph's own saver reads the checkpoint."""
    roles = {"human": "user", "ai": "assistant"}
    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        found = await saver.aget_tuple({"configurable": {"thread_id": session}})
    messages = found.checkpoint["channel_values"].get("messages", []) if found else []
    return [(roles[message.type], message.text) for message in messages]


def violations(tables: Tables, crowd: Crowd, answer: str | None) -> list[str]:
    """`answer` is what the model says when nobody stops it, where that is known."""
    found = list(crowd.complaints)
    for session, turns in tables.turns.items():
        rows = tables.rows[session]
        wrong = [*_log(rows, turns), *(fault for turn in turns for fault in _turn(turn, rows, answer))]
        wrong += _conversation(rows, turns, crowd.snapshots.get(session), tables.spoken[session])
        found += [f"{session}: {fault}" for fault in wrong]
    for asked in crowd.asked:
        found += [f"{asked.session_id}: {fault}" for fault in _asked(asked, tables)]
    asked_to_stop = {turn_id for _, turn_id, _, _ in crowd.cancels}
    for turn in (turn for turns in tables.turns.values() for turn in turns):
        if turn.status == "cancelled" and turn.turn_id not in asked_to_stop:
            found.append(f"{turn.session_id}: nobody cancelled {turn.turn_id}")
    for session_id, turn_id, status, seq in crowd.cancels:
        turn = next(turn for turn in tables.turns[session_id] if turn.turn_id == turn_id)
        if (turn.status, turn.last_seq) != (status, seq):
            found.append(f"{session_id}: a cancel was told {status} at {seq}, it was {turn.status} at {turn.last_seq}")
    return found


def _log(rows: Sequence[Row], turns: Sequence[TurnRow]) -> list[str]:
    """Consecutive, and one turn after the other."""
    wrong = []
    if [row.seq for row in rows] != list(range(1, len(rows) + 1)):
        wrong.append("the log's seqs are not 1, 2, 3 …")
    order = [turn.turn_id for turn in turns for row in rows if row.turn_id == turn.turn_id]
    if [row.turn_id for row in rows] != order:
        wrong.append("turns are mixed up in the log")
    if len({turn.request_id for turn in turns}) != len(turns):
        wrong.append("one request, two turns")
    return wrong


def _turn(turn: TurnRow, rows: Sequence[Row], answer: str | None) -> list[str]:
    mine = [row for row in rows if row.turn_id == turn.turn_id]
    types = [row.type for row in mine]
    wrong = [f"{turn.turn_id}: {kind} {types.count(kind)} times" for kind in SAID_ONCE if types.count(kind) > 1]
    if turn.status not in ENDS:
        return [*wrong, f"{turn.turn_id} was left {turn.status}"]
    if not mine or mine[-1].type != turn.status or (mine[0].seq, mine[-1].seq) != (turn.first_seq, turn.last_seq):
        return [*wrong, f"{turn.turn_id}: its row says {turn}, its events {types}"]
    if types[0] != "turn_started" or sum(kind in ENDS for kind in types) != 1:
        wrong.append(f"{turn.turn_id}: it has not one start and one end: {types}")
    said = _said(mine)
    if said != mine[-1].content:
        wrong.append(f"{turn.turn_id}: its tokens {said[-40:]!r} are not its answer {mine[-1].content[-40:]!r}")
    if mine[-1].type == "error" and not was_lost(mine[-1]):
        wrong.append(f"{turn.turn_id}: no fault may end a turn so: {mine[-1].data}")
    if answer is None:
        answer = said
    if not answer.startswith(said) or (turn.status == "done" and said != answer):
        wrong.append(f"{turn.turn_id}: {said!r} is not what the model said")
    return wrong + _attempts(turn, mine)


def _said(rows: Sequence[Row]) -> str:
    resets = [row.seq for row in rows if row.type == "reset"]
    return "".join(row.content for row in rows if row.type == "token" and row.seq > max(resets, default=0))


def _attempts(turn: TurnRow, rows: Sequence[Row]) -> list[str]:
    """Each attempt but the first begins with its reset, and none writes after a later one has."""
    wrong = []
    for earlier, row in pairwise(rows):
        others_end = row.type == "cancelled" or was_lost(row)
        right = row.attempt > earlier.attempt if others_end or row.type == "reset" else row.attempt == earlier.attempt
        if not right and not (earlier.attempt == 0 and row.attempt == 1):
            wrong.append(f"{turn.turn_id}: attempt {row.attempt} wrote {row.type} after attempt {earlier.attempt}")
    spent = attempts_spent(turn, rows)
    if spent > MAX_ATTEMPTS or (was_lost(rows[-1]) and spent < MAX_ATTEMPTS):
        wrong.append(f"{turn.turn_id}: {turn.attempt} attempts, {turn.handed_back} handed back, then {rows[-1].type}")
    return wrong


def attempts_spent(turn: TurnRow, rows: Sequence[Row]) -> int:
    """Without those handed back, and without the attempt that an end by somebody else is counted as."""
    by_others = bool(rows) and (rows[-1].type == "cancelled" or was_lost(rows[-1]))
    return turn.attempt - turn.handed_back - by_others


def was_lost(row: Row) -> bool:
    """Whether this ends a turn whose workers were lost."""
    return row.type == "error" and json.loads(row.data)["code"] == "worker_lost"


def _conversation(
    rows: Sequence[Row], turns: Sequence[TurnRow], snapshot: dict[str, Any] | None, spoken: list[tuple[str, str]]
) -> list[str]:
    """The log, the snapshot and the checkpoint tell one conversation."""
    told: list[tuple[str, str, str, str]] = []
    for turn in turns:
        mine = [row for row in rows if row.turn_id == turn.turn_id]
        start = json.loads(mine[0].data)
        told = [message for message in told if message[0] != start.get("replaces")]
        told.append((turn.turn_id, "user", start["message"], "complete"))
        if mine[-1].type in ENDS:
            status = {"done": "complete"}.get(mine[-1].type, mine[-1].type)
            told.append((turn.turn_id, "assistant", mine[-1].content, status))
    wrong = []
    if snapshot is None:
        wrong.append("its snapshot was never read")
    else:
        shown = [(m["turn_id"], m["role"], m["content"], m["status"]) for m in snapshot["messages"]]
        if shown != told or snapshot["turn"] is not None or snapshot["last_seq"] != rows[-1].seq:
            wrong.append("the snapshot does not tell what the log tells")
    if turns[-1].status == "done" and spoken != [(role, text) for _, role, text, _ in told if text]:
        wrong.append("the checkpoint's messages are not the log's")
    return wrong


def _asked(asked: Asked, tables: Tables) -> list[str]:
    """One question is one turn, and every reader was given its rows, each once, byte for byte."""
    wrong = []
    if len(asked.answers) != 1:
        wrong.append(f"one question was answered with {len(asked.answers)} turns")
    turn = next((t for t in tables.turns.get(asked.session_id, []) if t.request_id == asked.request_id), None)
    if turn is None or turn.turn_id != asked.turn_id or str(UUID(turn.turn_id)) != turn.turn_id:
        return [*wrong, "a question that was taken has no turn"]
    stored = {row.seq: (row.type, row.data.encode()) for row in tables.rows[asked.session_id]}
    for reading in asked.readings:
        if not reading.finished:
            wrong.append("a reader was left without the end")
        seqs = [got.seq for got in reading.frames]
        if seqs != list(range(turn.first_seq, (turn.last_seq or 0) + 1)):
            wrong.append(f"a reader was given {seqs}, the turn is {turn.first_seq} to {turn.last_seq}")
        strange = [got.seq for got in reading.frames if stored.get(got.seq) != (got.type, got.data)]
        if strange:
            wrong.append(f"a reader was given {strange} otherwise than the log has them")
    return wrong
