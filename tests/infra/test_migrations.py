"""A release's migrations only add: replicas of the one before run beside them."""

import re

import pytest

from graph.eventlog.migrate import migrations

LAST_BEFORE_RELEASES = 3  # until then nobody had a replica that could run beside a migration
COMMENT = re.compile(r"--([^\n]*)")
UNUSED = re.compile(r"-- unused since \d+\.\d+")  # of what goes: no release that may still run uses it
BRIEF = re.compile(r"-- brief: \w+")  # of an index on a table that is in use: why those who write may wait for it
MADE = re.compile(r"create table (\w+)")
INDEX = re.compile(r"create (unique )?index \w+ on (\w+) .+")
REFERENCES = re.compile(r"\b(?:references|inherits \(|like) ?\"?(\w+)")
TYPE = (
    r"(text|varchar(\(\d+\))?|boolean|smallint|integer|bigint|double precision|uuid|json|jsonb|bytea|timestamptz"
    r"|interval)(\[\])?"
)
CONSTANT = r"default (-?\d+|true|false|now\(\)|'[^']*')"
COLUMN = re.compile(rf"alter table \w+ add column \w+ {TYPE}( {CONSTANT}| not null {CONSTANT}| {CONSTANT} not null)?")


def not_expanding(statements: str) -> list[str]:
    """Those that a replica of the release before could stumble over, or wait for: all but new tables, their indexes and
    columns for which no row need be written. A comment may excuse a statement."""
    of_comments = COMMENT.sub(lambda comment: comment[0].replace(";", ","), statements)
    parts = [(part, " ".join(COMMENT.sub("", part).lower().split())) for part in of_comments.split(";")]
    made = {table for _, text in parts for table in MADE.findall(text)}
    return [text for part, text in parts if text and not (_expands(text, part, made) or UNUSED.search(part))]


def _expands(text: str, commented: str, made: set[str]) -> bool:
    if MADE.match(text):
        return set(REFERENCES.findall(text)) <= made
    if index := INDEX.fullmatch(text):
        return index[2] in made or (not index[1] and BRIEF.search(commented) is not None)
    return COLUMN.fullmatch(text) is not None


def test_migrations_since_the_first_release_only_add() -> None:
    found = {version: not_expanding(statements) for version, _, statements in migrations()}
    assert found[3][0] == "drop table word_counts, passages, documents, encoder"
    assert {version: some for version, some in found.items() if some and version > LAST_BEFORE_RELEASES} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "drop table turns",
        "alter table events add column n bigserial",
        'create table notes (turn uuid references "turns")',
        "create table copies () inherits (events)",
        "alter table turns drop column worker",
        "ALTER TABLE turns\n  RENAME COLUMN worker TO holder",
        "alter index turns_active rename to active",
        "alter table turns alter column attempt type bigint",
        "alter table turns alter column worker set not null",
        "alter table turns add column region text not null",
        "alter table turns add column region text unique",
        "alter table turns add column region text references regions",
        "alter table turns add column region uuid default gen_random_uuid()",
        "alter table turns add check (attempt < 100)",
        "alter table turns add constraint few check (attempt < 100) not valid",
        "delete from events where type = 'token'",
        "update turns set attempt = 0",
        "truncate word_counts",
        "revoke update on turns from pulseline_app",
        "create trigger checked before insert on turns execute function check_turn()",
        "create table votes (session_id uuid references sessions)",
        "-- made anew; with more in it\ndrop index turns_active",
        "create index turns_by_region on turns (region)",
        "-- brief: few rows\ncreate unique index turns_by_region on turns (region)",
        "create index concurrently turns_by_region on turns (region)",  # not in a transaction
    ],
)
def test_what_an_old_replica_could_stumble_over_or_wait_for_is_found(statement: str) -> None:
    assert len(not_expanding(f"create table next (x int not null);\n{statement};\n")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "create table regions (name text primary key, dropped boolean not null)",
        "create table regions (name text); create unique index regions_named on regions (name)",
        "create table votes (name text); create table voters (vote text references votes) with (fillfactor = 50)",
        "alter table turns add column region text",
        "alter table turns add column weights double precision[] default '{}'",
        "alter table turns add column region text not null default ''",
        "alter table turns add column region varchar(9) default '' not null",
        "-- brief: one row for each conversation; a minute at most\ncreate index sessions_by_title on sessions (title)",
        "-- unused since 0.2\ndrop table regions",
    ],
)
def test_what_adds_passes(statement: str) -> None:
    assert not_expanding(f"{statement};\n") == []
