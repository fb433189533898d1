"""Law 9: pruning never lies. Whatever its cursor, a reader gets the whole answer in the end, and no wrong prefix."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from functions.frames import encode
from graph.eventlog import hub as hub_module
from graph.eventlog.events import Event
from graph.eventlog.hub import Hub, Reader
from graph.eventlog.sessions import Sessions
from graph.eventlog.writer import HeldTurn, Writer
from tests.support.checker import History, Row, TurnRow
from tests.support.client import ENDS, Person, Received
from tests.support.server import serving
from tests.support.turns import OWNER, all_events, done, holding, open_writer, token

TURNS = (
    "select turn_id::text, status, attempt, first_seq, last_seq, pruned_at is not null from turns order by first_seq"
)


def pulseline(database_url: str, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
    return subprocess.run(
        [sys.executable, "-m", "functions", *command],
        env={**environment, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def ended_long_ago(database_url: str, turn_ids: list[str]) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "update turns set ended_at = ended_at - interval '3 hours' where turn_id = any(%s::uuid[])", [turn_ids]
        )


def test_sweep_does_what_it_is_told_and_nothing_too_young(database_url: str) -> None:
    for command, status, words in (
        (("sweep",), 0, "pruned 0 turns"),
        (("sweep", "--older-than", "0.1"), 1, "10 minutes"),
    ):
        done = pulseline(database_url, *command)
        assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (status, True, False), done


async def test_every_cursor_of_a_pruned_session_gets_the_whole_answers(database_url: str, tmp_path: Path) -> None:
    """Three turns of a session: answered, stopped, and one that is too young to be pruned."""
    with (
        serving(database_url, tmp_path, "scripted?tokens=100&delay_ms=10") as worker,
        serving(database_url, tmp_path, WORKER="off", NOTIFY="off") as tail,
    ):
        async with Person() as person:
            first = await person.start(worker.url, "First")
            session_id = first["session_id"]
            whole = await person.read(worker.url, session_id)
            second = await person.start(worker.url, "Second", session_id=session_id)
            async with person.watch(tail.url, session_id, second["after"]) as watching:
                await watching.until("token")
                worker.signal(signal.SIGSTOP)
                midway = await person.snapshot(tail.url, session_id)
                await person.cancel(tail.url, session_id)
                worker.signal(signal.SIGCONT)
                whole += await watching.rest()
            third = await person.start(worker.url, "Third", session_id=session_id)
            whole += await person.read(worker.url, session_id, third["after"])
            assert [frame.seq for frame in whole] == list(range(1, len(whole) + 1))
            before = await person.snapshot(tail.url, session_id)

            ended_long_ago(database_url, [first["turn_id"], second["turn_id"]])
            swept = await asyncio.to_thread(pulseline, database_url, "sweep", "--older-than", "2")
            assert "pruned 2 turns" in swept.stderr, swept
            left = [frame for frame in whole if frame.type != "token" or frame.seq > third["after"]]
            assert len(left) < len(whole)

            for cursor in range(len(whole)):
                until_an_end = await person.read(tail.url, session_id, cursor)
                follows = [frame for frame in left if frame.seq > cursor]
                assert until_an_end == follows[: 1 + next(n for n, f in enumerate(follows) if f.type in ENDS)]
                async with person.watch(tail.url, session_id, last_event_id=cursor, follow="session") as watching:
                    await watching.until(*ENDS, count=sum(frame.type in ENDS for frame in follows))
                assert watching.frames == follows
                _check_what_a_person_sees(whole, cursor, watching.frames)
            async with person.watch(tail.url, session_id, len(whole)) as watching:
                assert watching.response.status_code == 204
            await _check_snapshots(person, tail.url, before, midway)


async def _check_snapshots(person: Person, url: str, before: dict[str, object], midway: dict[str, object]) -> None:
    """One taken after the pruning tells the same; one taken in mid-answer goes on with the answer's end."""
    session_id = str(before["session_id"])
    assert await person.snapshot(url, session_id) == before
    running, last_seq = midway["turn"], midway["last_seq"]
    assert isinstance(running, dict)
    assert isinstance(last_seq, int)
    rest = await person.read(url, session_id, last_seq)
    assert [frame.type for frame in rest] == ["cancelled"]
    assert rest[0].data["content"].startswith(running["content"])
    assert running["content"]


def _check_what_a_person_sees(whole: list[Received], cursor: int, frames: list[Received]) -> None:
    """Tokens are added to the text, an end replaces it: at each end the text is the answer, before it a prefix."""
    seen = [frame for frame in whole if frame.seq <= cursor]
    text, answer, last = "", "", 0
    for frame in [*seen, *frames]:
        if frame.type == "turn_started":
            text, answer = "", _answer(whole, frame.seq)
        if frame.type == "token":
            assert frame.seq == last + 1, f"a jump from {last} on to a token, {frame.seq}"
            text += frame.data["content"]
        assert answer.startswith(text), f"{text!r} is no beginning of {answer!r}"
        if frame.type in ENDS:
            assert _content(frame) == answer
        last = frame.seq


def _answer(whole: list[Received], first_seq: int) -> str:
    return _content(next(frame for frame in whole if frame.seq > first_seq and frame.type in ENDS))


def _content(end: Received) -> str:
    return str(end.data["message"]["content"] if end.type == "done" else end.data["content"])


@pytest.fixture
def small_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RING_MAX_FRAMES", 8)
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 5)


WORDS = 30


async def write(writer: Writer, turn: HeldTurn, words: range) -> None:
    for n in words:
        await writer.append(turn, token(f"{n} "))
        await writer.flush(turn)


async def finish(writer: Writer, turn: HeldTurn) -> None:
    await writer.append(turn, done(turn, "".join(f"{n} " for n in range(WORDS))))
    await writer.flush(turn)


class Readers:
    """One for every cursor, all attached to one hub while the tokens go."""

    def __init__(self, hub: Hub, stack: ExitStack, turn: HeldTurn, head: int) -> None:
        watch = stack.enter_context(hub.watch(turn.session_id))
        self._readers = {cursor: hub.reader(watch, head, cursor, active=True) for cursor in range(head + 1)}
        self._frames: dict[int, list[bytes]] = {cursor: [] for cursor in self._readers}

    async def read(self, readers: dict[int, Reader] | None = None) -> None:
        """Each reads once: from the ring, or a page."""
        for cursor, reader in (self._readers if readers is None else readers).items():
            self._frames[cursor] += [frame.data for frame in await reader.next(0.01)]

    async def read_to(self, last_seq: int) -> None:
        async with asyncio.timeout(20):
            while behind := {n: reader for n, reader in self._readers.items() if reader.cursor < last_seq}:
                await self.read(behind)

    def check(self, history: History) -> None:
        for start, frames in self._frames.items():
            assert history.check_reader(start, frames) == history.last_seq
            assert json.loads(frames[-1].split(b"data: ")[1])["message"]["content"].startswith("0 1 2 ")


async def pruned(log: Sessions, database_url: str, turn: HeldTurn) -> None:
    ended_long_ago(database_url, [str(turn.turn_id)])
    assert await log.prune(3600, 10) == 1
    assert [event.type for event in await all_events(log, turn.session_id)] == ["turn_started", "done"]


def history_of(database_url: str, rows: list[Event], left: list[Event]) -> History:
    """All that was ever announced, and then the table as it is now."""
    history = History()
    for event in rows:
        history.announced(_row(event))
    with psycopg.connect(database_url) as connection:
        turns = [TurnRow(*turn) for turn in connection.execute(TURNS).fetchall()]
    history.look([_row(event) for event in left], turns)
    return history


def _row(event: Event) -> Row:
    return Row(event.seq, str(event.turn_id), event.attempt, event.type, event.data)


@pytest.mark.usefixtures("small_ring")
@pytest.mark.parametrize("own", [True, False], ids=["the turn ran here", "it ran on another replica"])
@pytest.mark.parametrize("seen", [0, WORDS // 2], ids=["from the start", "midway"])
async def test_readers_of_a_hub_whose_session_is_pruned_meanwhile_get_the_end(
    database_url: str, log: Sessions, own: bool, seen: int
) -> None:
    """Some stand in the ring, some behind it, some within a page; another replica's hub knows half of the turn."""
    turn = await holding(log)
    whole = await all_events(log, turn.session_id)
    hub = Hub(log.read, encode, poll_seconds=3600)

    def committed(events: list[Event]) -> None:
        whole.extend(events)
        if own:
            hub.publish(events)

    async with open_writer(database_url, committed) as writer, hub.running():
        with ExitStack() as stack:
            await write(writer, turn, range(seen))
            readers = Readers(hub, stack, turn, head=1 + seen)
            await write(writer, turn, range(seen, WORDS))
            hub.hint([turn.session_id])
            await readers.read()
            await finish(writer, turn)
            await pruned(log, database_url, turn)
            hub.hint([turn.session_id])
            await readers.read_to(turn.next_seq - 1)
    left = await all_events(log, turn.session_id)
    readers.check(history_of(database_url, whole, left))


async def test_a_turn_that_cannot_be_pruned_undoes_no_other_turns_pruning(database_url: str, log: Sessions) -> None:
    turns = [await holding(log) for _ in range(2)]
    async with open_writer(database_url) as writer:
        for turn in turns:
            await write(writer, turn, range(3))
            await finish(writer, turn)
    for turn in turns:
        ended_long_ago(database_url, [str(turn.turn_id)])
    with psycopg.connect(database_url, autocommit=True) as connection:
        ended = "update turns set ended_at = ended_at - interval '1 day' where turn_id = %s"
        connection.execute(ended, [turns[0].turn_id])  # it goes first
        connection.execute(
            "create function refuse() returns trigger language plpgsql as"
            " $$ begin raise 'not this one'; end $$;"
            "create trigger refuse before update on turns for each row"
            f" when (new.turn_id = '{turns[1].turn_id}') execute function refuse()"
        )
        try:
            with pytest.raises(psycopg.Error):
                await log.prune(3600, 10)
        finally:
            connection.execute("drop function refuse cascade")
    left = [[event.type for event in await all_events(log, turn.session_id)] for turn in turns]
    assert left[0] == ["turn_started", "done"]
    assert "token" in left[1]


async def test_two_pruners_and_an_erasure_at_once_harm_nobody(database_url: str, log: Sessions) -> None:
    turns = [await holding(log) for _ in range(12)]
    async with open_writer(database_url) as writer:
        for turn in turns:
            await write(writer, turn, range(3))
            await finish(writer, turn)
    ended_long_ago(database_url, [str(turn.turn_id) for turn in turns])
    erased = turns[::4]
    outcomes = await asyncio.gather(
        *(log.prune(3600, 100) for _ in range(3)), *(log.erase(turn.session_id, OWNER) for turn in erased)
    )
    assert sum(count for count in outcomes if count is not None) <= len(turns)
    await log.prune(3600, 100)
    for turn in turns:
        left = [event.type for event in await all_events(log, turn.session_id)]
        assert left == ([] if turn in erased else ["turn_started", "done"])
