"""A session that is erased is nowhere any more: every column of every table of the database is searched for it."""

from collections import Counter
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.support.client import ENDS, Person
from tests.support.server import serving

CANARY, OTHER = "zanzibarium", "quetzalium"
COLUMNS = """select table_schema, table_name, column_name, data_type
  from information_schema.columns join information_schema.tables using (table_schema, table_name)
 where table_type = 'BASE TABLE' and table_schema !~ '^(pg_.*|information_schema)$'"""


def places(connection: Connection[TupleRow], *words: str) -> Counter[str]:
    """In how many rows of each table.column any of these stands: as text whatever the type, in bytes as they are."""
    found: Counter[str] = Counter()
    for schema, table, column, data_type in connection.execute(COLUMNS).fetchall():
        name = sql.Identifier(column)
        holds = "position(%s in {c}) > 0" if data_type == "bytea" else "strpos(lower({c}::text), %s) > 0"
        needles = [_bytes(word) if data_type == "bytea" else [word] for word in words]
        flat = [needle for each in needles for needle in each]
        condition = sql.SQL(" or ").join(sql.SQL(holds).format(c=name) for _ in flat)
        query = sql.SQL("select count(*) from {} where {}").format(sql.Identifier(schema, table), condition)
        row = connection.execute(query, flat).fetchone()
        if row and row[0]:
            found[f"{table}.{column}"] = row[0]
    return found


def _bytes(word: str) -> list[bytes]:
    """A UUID may also stand there as its 16 bytes."""
    try:
        return [word.encode(), UUID(word).bytes]
    except ValueError:
        return [word.encode()]


async def test_erasure_leaves_nothing_in_any_table_though_a_turn_still_runs(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, "scripted?tokens=150&delay_ms=10") as server:
        async with Person() as person:
            first = await person.start(server.url, f"What is {CANARY}?", request_id=f"request-{CANARY}")
            session_id, path = first["session_id"], f"{server.url}/sessions/{first['session_id']}"
            await person.read(server.url, session_id)
            feedback = {"value": -1, "comment": f"No {CANARY} in it"}
            judged = await person.client.put(f"{path}/turns/{first['turn_id']}/feedback", json=feedback)
            renamed = await person.client.patch(path, json={"title": f"About {CANARY}"})
            assert (judged.status_code, renamed.status_code) == (204, 204)
            second = await person.start(server.url, f"More {CANARY}?", session_id=session_id)
            neighbour = await person.start(server.url, f"What is {OTHER}?")
            words = (session_id, first["turn_id"], second["turn_id"], CANARY)
            async with person.watch(server.url, session_id, second["after"]) as watching:
                await watching.until("token")
                with server.held(), psycopg.connect(database_url) as connection:  # the answer must not end meanwhile
                    before, others = places(connection, *words), places(connection, neighbour["session_id"], OTHER)
                erased = await person.client.delete(path)
                assert erased.status_code == 204
                rest = await watching.rest()
            assert not any(frame.type in ENDS for frame in rest), "it was still being answered"
            # The same worker's other turn ends after whatever it still tried to write for the erased one.
            await person.read(server.url, neighbour["session_id"])
    tables = {place.partition(".")[0] for place in before}
    assert tables == {
        *("sessions", "turns", "events", "feedback", "checkpoints", "checkpoint_blobs", "checkpoint_writes"),
    }, "the search must find it where it is known to be"
    with psycopg.connect(database_url) as connection:
        assert places(connection, *words) == {"sessions.session_id": 1}, "only the tombstone's id may be left"
        tombstone = connection.execute(
            "select owner, title from sessions where session_id = %s and deleted_at is not null", [session_id]
        ).fetchone()
        after = places(connection, neighbour["session_id"], OTHER)
    assert tombstone == ("", "")
    assert set(after) >= set(others), "the neighbour's session is all there"
