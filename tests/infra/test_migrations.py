"""A release's migrations only add: replicas of the one before run beside them."""

import re

import pytest

from graph.eventlog.migrate import migrations

LAST_BEFORE_RELEASES = 3  # until then nobody had a replica that could run beside a migration
UNUSED = re.compile(r"--\s*unused since \d+\.\d+")
COMMENT = re.compile(r"--[^\n]*")
ALLOWED = "/* allowed */"
TAKES_AWAY = re.compile(
    r"^\s*(drop|truncate|delete)\b"
    r"|\bdrop\s+(column|constraint|default|not\s+null|identity|expression)\b"
    r"|\balter\s+table\b.*(\bdrop\b|\brename\b|\bset\s+not\s+null\b|\btype\b)"
    r"|^\s*alter\b.*\brename\b"
    r"|\balter\s+table\b(?!.*\bdefault\b).*\badd\b.*\bnot\s+null\b",
    re.IGNORECASE | re.DOTALL,
)


def taking_away(statements: str) -> list[str]:
    """Those that a replica of the release before would stumble over; one of what no release uses any more says so in a
    comment: `-- unused since 0.2`."""
    bare = COMMENT.sub(lambda comment: ALLOWED if UNUSED.match(comment[0]) else "", statements)
    return [text.strip() for text in bare.split(";") if TAKES_AWAY.search(text) and ALLOWED not in text]


def test_migrations_since_the_first_release_only_add() -> None:
    found = {version: taking_away(statements) for version, _, statements in migrations()}
    assert found[3] == ["drop table word_counts, passages, documents, encoder"]
    assert {version: some for version, some in found.items() if some and version > LAST_BEFORE_RELEASES} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "drop table turns",
        "alter table turns drop column worker",
        "alter table turns drop worker",
        "ALTER TABLE turns\n  RENAME COLUMN worker TO holder",
        "alter table turns rename to jobs",
        "alter index turns_active rename to active",
        "alter table turns alter column attempt type bigint",
        "alter table turns alter attempt set data type bigint",
        "alter table turns alter column worker set not null",
        "alter table turns add column region text not null",
        "delete from events where type = 'token'",
        "truncate word_counts",
        "-- made anew\ndrop index turns_active",
    ],
)
def test_what_takes_away_is_found(statement: str) -> None:
    assert taking_away(f"create table next (x int not null);\n{statement};\n") != []


@pytest.mark.parametrize(
    "statement",
    [
        "create table regions (name text primary key, dropped boolean not null)",
        "alter table turns add column region text",
        "alter table turns add column region text not null default ''",
        "alter table turns add column region text default '' not null",
        "create index concurrently turns_by_region on turns (region)",
        "-- unused since 0.2\ndrop table regions",
    ],
)
def test_what_adds_passes(statement: str) -> None:
    assert taking_away(f"{statement};") == []
