"""The hot statements on 5 million events: they read what they need by an index, however large the tables are.

Before and after ANALYZE; planned for their values and, as prepared statements come to be, once for all values.
"""

import json
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection, ClientCursor, Connection

from graph.eventlog.events import Event
from graph.eventlog.log import Candidate, Log, tail_parameters
from graph.eventlog.queries import query
from graph.eventlog.writer import HeldTurn, _parameters, _Part, _turns
from tests.conftest import Say
from tests.support.turns import holding, open_writer, token

SESSIONS, TURNS_A_SESSION, EVENTS_A_TURN = 10_000, 5, 100
STREAMING, LOST, QUEUED = 500, 20, 20  # sessions whose turn runs, whose lease ran out, whose turn waits
SORTED = "expired_sessions"  # nobody waits for it: without statistics all sessions are sorted, and each looked up once
STREAMED = 50  # events of such a turn so far
AT_ONCE = 100  # sessions that were answered at the same time: their rows lie mixed in the table
SIZES = {
    "sessions": SESSIONS,
    "turns": TURNS_A_SESSION,
    "events": EVENTS_A_TURN,
    "streaming": SESSIONS + STREAMING,
    "lost": SESSIONS + STREAMING + LOST,
    "all": SESSIONS + STREAMING + LOST + QUEUED,
    "streamed": STREAMED,
    "at_once": AT_ONCE,
}
# The indexes of so many events are made faster at the end than row by row.
LOAD = """
set synchronous_commit = off;
set maintenance_work_mem = '256MB';
set join_collapse_limit = 1;
alter table events set (autovacuum_enabled = off);
alter table turns set (autovacuum_enabled = off);
alter table sessions set (autovacuum_enabled = off);
alter table events drop constraint events_pkey;
drop index events_one_end;

insert into sessions (session_id, owner, updated_at)
select md5('session ' || s)::uuid, 'anonymous:owner ' || s %% 500, now() - interval '9 days' + s * interval '1 second'
  from generate_series(1, %(all)s) s;

insert into turns (session_id, turn_id, request_id, status, attempt, first_seq, last_seq, created_at, ended_at)
select md5('session ' || s)::uuid, md5('turn ' || s || ' ' || t)::uuid, t, 'done', 1,
       1 + (t - 1) * %(events)s, t * %(events)s, ended - interval '1 minute', ended
  from generate_series(1, %(turns)s) t cross join generate_series(1, %(sessions)s) s
 cross join lateral (select now() - interval '9 days' + (t * %(sessions)s + s) * interval '1 second' as ended) e;

create temporary table answered as
select t, array_agg(md5('session ' || s)::uuid) as sessions, array_agg(md5('turn ' || s || ' ' || t)::uuid) as turns
  from generate_series(1, %(turns)s) t cross join generate_series(1, %(sessions)s / %(at_once)s) part
 cross join lateral generate_series((part - 1) * %(at_once)s + 1, part * %(at_once)s) s group by t, part;

insert into events (session_id, seq, turn_id, attempt, type, data)
select e.session_id, (a.t - 1) * %(events)s + n, e.turn_id, 1,
       case n when 1 then 'turn_started' when %(events)s then 'done' else 'token' end,
       '{"content":"iron helps ","timestamp":"2026-11-24T10:00:00.000Z"}'
  from answered a cross join generate_series(1, %(events)s) n
 cross join lateral unnest(a.sessions, a.turns) as e (session_id, turn_id);

insert into turns (session_id, turn_id, request_id, status, attempt, worker, lease_until, first_seq)
select md5('session ' || s)::uuid, md5('turn ' || s || ' 1')::uuid, 1,
       case when s <= %(lost)s then 'running' else 'queued' end, 1, 'worker',
       case when s <= %(streaming)s then now() + interval '1 hour' when s <= %(lost)s then now() end, 1
  from generate_series(%(sessions)s + 1, %(all)s) s;

insert into events (session_id, seq, turn_id, attempt, type, data)
select session_id, n, turn_id, 1, case n when 1 then 'turn_started' else 'token' end, '{"content":"iron "}'
  from turns cross join generate_series(1, %(streamed)s) n where ended_at is null and (status = 'running' or n = 1);

create unique index events_one_end on events (session_id, turn_id) where type in ('done', 'cancelled', 'error');
alter table events add primary key (session_id, seq);
"""


class Hot(NamedTuple):
    """A statement, its values, how many rows it gives, and the most pages and rows that it may touch for that: limits
    that do not grow with the tables."""

    name: str
    values: dict[str, Any]
    gives: int
    pages: int
    rows: int
    of: str = ""


Turn = tuple[UUID, UUID]


def _batch(turns: list[Turn], events_a_turn: int, ending: int = 0) -> dict[str, str]:
    """What the writer sends: the first `ending` turns come to their end."""
    parts = []
    for n, (session_id, turn_id) in enumerate(turns):
        turn = HeldTurn(session_id, turn_id, 1, STREAMED + 1)
        types = ["token"] * (events_a_turn - 1) + ["done" if n < ending else "token"]
        rows = [Event(session_id, STREAMED + 1 + m, turn_id, 1, kind, "{}") for m, kind in enumerate(types)]
        parts.append(_Part(turn, rows, [], []))
    return _parameters(parts)


def _held(turns: list[Turn]) -> list[HeldTurn]:
    return [HeldTurn(session_id, turn_id, 1, 1) for session_id, turn_id in turns]


def _leases(turns: list[Turn]) -> dict[str, Any]:
    sessions, ids = [session_id for session_id, _ in turns], [turn_id for _, turn_id in turns]
    return {"sessions": sessions, "turns": ids, "attempts": [1] * len(turns), "seconds": [6.0] * len(turns)}


def _hot(running: list[Turn], queued: Turn, ended: Turn, fresh: Turn, owner: str) -> list[Hot]:
    """Pages: three or four for a key, the row's own, and for a written row those of its new version and its keys."""
    sessions = [session_id for session_id, _ in running]
    one = {"session_id": running[0][0], "turn_id": running[0][1], "attempt": 1}
    waits = {"session_id": queued[0], "turn_id": queued[1], "attempt": 1}
    began = {"session_id": fresh[0], "turn_id": fresh[1]}
    over = {"session_id": ended[0], "turn_id": ended[1]}
    asked = {
        "owner": owner,
        "session_id": ended[0],
        "turn_id": UUID(int=1),
        "request_id": "new",
        "replaces": None,
        "owner_hash": None,
    }
    quota = {"owner_hash": b"nobody", "window_seconds": 60, "per_minute": 60, "at_once": 10}
    takes = {"worker": "w", "lease_seconds": 6, "reason": "worker_lost"}
    end = {"status": "cancelled", "data": "{}", "attempt": None, "held": False, "spent": 0}
    current = dict.fromkeys(sessions, STREAMED)
    behind = dict.fromkeys(sessions, STREAMED - 2)
    return [
        Hot("append", _batch(running, 2), 500, 16_000, 12_000, "2 events of each of 500 turns"),
        Hot("append", _batch(running[:100], 10, ending=100), 100, 12_000, 12_000, "10 events of 100 turns that end"),
        Hot("append", _batch(running[:1], 1), 1, 60, 1200, "one event"),
        Hot("guard", _turns(_held(running)), 1, 4000, 2000),
        Hot("locked", _turns(_held(running)), 0, 12_000, 4000),
        Hot("renew", _leases(running), 500, 20_000, 8000),
        Hot("still_held", _leases(running), 500, 4000, 2000),
        Hot("committed", {**one, "seq": STREAMED, "type": "token", "data": '{"content":"iron "}'}, 1, 20, 10),
        Hot("candidates", {"limit": 500}, LOST + QUEUED + 1, 100, 2000),
        Hot("claimable", {**waits, "fresh_seconds": 0}, 1, 20, 10),
        Hot("lock_turn", one, 1, 20, 10),
        Hot("claim", {**waits, **takes}, 1, 100, 100),
        Hot("hand_back", one, 1, 40, 10),
        Hot("excuse", {**waits, "attempt": 0}, 1, 40, 10),
        Hot("end_by_anyone", {**one, **end}, 1, 300, 500, "with 49 tokens"),
        Hot("turn_to_cancel", {**one, "turn_id": None}, 1, 20, 20),
        Hot("start_quota", {**asked, **quota}, 0, 4000, 500, "of an owner of all sessions"),
        Hot("start_turn", asked, 0, 60, 50),
        Hot("start_event", {**began, "data": "{}"}, 0, 100, 50),
        Hot("start_result", asked, 0, 60, 50),
        Hot("tail_gate", {"session_id": ended[0], "owner": owner}, 1, 20, 20),
        Hot("silent", {"sessions": ",".join(map(str, sessions))}, 500, 6000, 4000, "of 500"),
        Hot("tail", tail_parameters(current, 256), 0, 4000, 4000, "of 500, nothing new"),
        Hot("tail", tail_parameters(behind, 256), 1000, 6000, 12_000, "of 500, 2 new of each"),
        Hot("tail", tail_parameters({ended[0]: 0}, 256), 256, 1000, 4000, "of one, a page"),
        Hot("snapshot", {"session_id": ended[0]}, 2 * TURNS_A_SESSION, 1000, 3000, "of 500 events"),
        Hot("snapshot", one, STREAMED, 150, 400, "of a running turn"),
        Hot("sessions", {"owner": owner, "query": "", "before": None, "before_id": None, "limit": 20}, 20, 200, 200),
        Hot("expired_sessions", {"age_seconds": 3600, "limit": 100}, 100, 1000, 2000),
        Hot("prunable", {"age_seconds": 3600, "limit": 100}, 100, 200, 500),
        Hot("prune", over, 0, 500, 500, "of 98 tokens"),
        Hot("erase_rows", over, 0, 4000, 3000, "of 500 events"),
    ]


def _explained(connection: Connection[Any], hot: Hot, plan: str) -> dict[str, Any]:
    """Runs it as a prepared statement, and takes back what it did."""
    names: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    statement = re.sub(r"%\((\w+)\)s", numbered, query(hot.name))
    values = ", ".join(["%s"] * len(names))
    with connection.transaction(force_rollback=True):
        connection.execute(f"set local plan_cache_mode = force_{plan}_plan".encode())
        connection.execute(f"prepare hot as {statement}".encode())
        explain = f"explain (analyze, buffers, format json) execute hot({values})"
        row = connection.execute(explain.encode(), [hot.values[name] for name in names]).fetchone()
        connection.execute("deallocate hot")
    assert row is not None
    root: dict[str, Any] = row[0][0]["Plan"]
    return root


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def _pages(root: dict[str, Any]) -> int:
    """Of the statement, and of the writing parts of its WITH, which run after it and are not counted in it."""
    writing = [node for node in _nodes(root) if node["Node Type"] == "ModifyTable" and node is not root]
    return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in (root, *writing))


def _rows(root: dict[str, Any]) -> float:
    """What all parts of the plan gave or threw away: a join of everything with everything shows here."""
    removed = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
    each = ((node["Actual Loops"], node["Actual Rows"] + sum(node.get(n, 0) for n in removed)) for node in _nodes(root))
    return float(sum(loops * rows for loops, rows in each))


def _broken(connection: Connection[Any], statements: list[Hot], when: str) -> list[str]:
    broken = []
    for hot in statements:
        for plan in ("custom", "generic"):
            root = _explained(connection, hot, plan)
            scanned = {node["Relation Name"] for node in _nodes(root) if node["Node Type"] == "Seq Scan"}
            assert root["Actual Rows"] == hot.gives, f"{hot.name} {hot.of} gives {root['Actual Rows']}"
            pages, rows = _pages(root), _rows(root)
            if scanned or pages > hot.pages or rows > hot.rows:
                found = (
                    f"{pages} pages (limit {hot.pages}), {rows:.0f} rows ({hot.rows}), all of {scanned or 'nothing'}"
                )
                broken.append(f"{hot.name} {hot.of}, {plan} plan, {when}: {found}\n{json.dumps(root)}")
    return broken


@pytest.mark.timeout(240)
def test_hot_statements_touch_no_more_on_five_million_events(database_url: str, say: Say) -> None:
    with psycopg.connect(database_url, autocommit=True, cursor_factory=ClientCursor) as connection:
        began = time.monotonic()
        connection.execute(LOAD, SIZES)
        took = time.monotonic() - began
        events = connection.execute("select count(*) from events").fetchone()
        assert events is not None
        assert events[0] >= SESSIONS * TURNS_A_SESSION * EVENTS_A_TURN == 5_000_000
        turns: dict[str, list[Turn]] = {
            kind: connection.execute(
                f"select session_id, turn_id from turns where {which} limit 500".encode()
            ).fetchall()
            for kind, which in (
                ("running", "lease_until > now()"),
                ("queued", "status = 'queued'"),
                ("ended", "first_seq = 201"),
            )
        }
        ended = turns["ended"][0]
        owner = connection.execute("select owner from sessions where session_id = %s", ended[:1]).fetchone()
        assert owner is not None
        fresh = turns["ended"][1][0], uuid4()  # a turn between START 2/4 and 3/4
        connection.execute("insert into turns (session_id, turn_id, request_id) values (%s, %s, 'fresh')", fresh)
        statements = _hot(turns["running"], turns["queued"][0], ended, fresh, owner[0])
        many = SIZES["all"]
        unknown = [hot._replace(pages=3 * many, rows=4 * many) if hot.name == SORTED else hot for hot in statements]
        broken = _broken(connection, unknown, "before ANALYZE")
        connection.execute("analyze sessions, turns, events")
        broken += _broken(connection, statements, "after ANALYZE")
    assert not broken, "\n".join(broken)
    say(f"plans: {len(statements)} statements on {events[0]:,} events, which took {took:.0f} s to load")


async def test_an_append_and_a_renewal_look_up_their_own_turns_on_tables_that_were_never_analysed(
    database_url: str, log: Log
) -> None:
    """A new database knows nothing of its tables: every running turn was compared with every turn of the batch."""
    running: list[Turn] = []
    async with log.pool.connection() as pooled:
        await pooled.execute("alter table turns set (autovacuum_enabled = off)")
    for _ in range(100):
        turn = await log.start(uuid4(), "anonymous:owner", "one", "Does iron help?")
        await log.claim(Candidate(turn.session_id, turn.turn_id), "worker", 60, "")
        running.append((turn.session_id, turn.turn_id))
    with psycopg.connect(database_url, autocommit=True, cursor_factory=ClientCursor) as connection:
        for hot in (
            Hot("append", _batch(running, 1), 100, 0, 2000),
            Hot("renew", _leases(running), 100, 0, 2000),
        ):
            touched = {plan: _rows(_explained(connection, hot, plan)) for plan in ("custom", "generic")}
            assert max(touched.values()) <= hot.rows, f"{hot.name} of 100 turns touches {touched} rows"


GROW = """
insert into turns (session_id, turn_id, request_id, status, attempt, worker, lease_until, first_seq)
select gen_random_uuid(), gen_random_uuid(), 1, 'running', 1, 'worker', now() + interval '1 hour', 1
  from generate_series(1, 5000);
"""


@pytest.mark.direct  # through PgBouncer nothing is prepared, and no plan kept
async def test_a_writer_s_plans_from_when_there_were_few_turns_are_made_anew_when_there_are_many(
    database_url: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a plan reads all turns for each turn of a batch, and is kept until the next ANALYZE."""
    monkeypatch.setattr("graph.eventlog.writer.PLANS_SECONDS", 0)
    turn = await holding(log)
    async with log.pool.connection() as connection, open_writer(database_url) as writer:
        await connection.execute("alter table turns set (autovacuum_enabled = off)")
        await connection.execute("analyze turns")
        await writer.append(turn, token("iron "))
        await writer.write(turn, [("select 1", None, False)])
        assert writer._connection is not None
        assert "Seq Scan on turns" in await _plans(writer._connection)
        await connection.execute(GROW)
        await writer.append(turn, token("helps"))
        await writer.write(turn, [("select 1", None, False)])
        assert "Seq Scan on turns" not in await _plans(writer._connection)


@pytest.mark.direct  # through PgBouncer nothing is prepared, and no plan kept
async def test_a_writer_s_small_batches_are_not_planned_each_time(database_url: str, log: Log) -> None:
    """Left to itself Postgres did, which took three quarters of the server's time for an append of a few tokens."""
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        for _ in range(10):
            await writer.append(turn, token("iron "))
            await writer.write(turn, [("select 1", None, False)])
        assert writer._connection is not None
        planned = await writer._connection.execute(
            "select count(*), sum(custom_plans) from pg_prepared_statements where statement like '%turns t%'"
        )
        assert await planned.fetchone() == (2, 0)


async def _plans(connection: AsyncConnection[Any]) -> str:
    """Of its prepared statements about turns."""
    found = await connection.execute(
        "select name, cardinality(parameter_types) from pg_prepared_statements where statement like '%turns t%'"
    )
    plans = ""
    for name, parameters in await found.fetchall():
        nothing = ", ".join(["''"] * parameters)
        explained = await connection.execute(f"explain execute {name}({nothing})".encode())
        plans += "\n".join(line for (line,) in await explained.fetchall())
    return plans
