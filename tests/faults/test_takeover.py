"""Workers that die, freeze or are told to stop: the turn goes on elsewhere, its text exact."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from graph.eventlog.log import Candidate, Claim
from graph.eventlog.sessions import Sessions
from graph.eventlog.writer import HeldTurn
from tests.support.client import Person, check_whole_turn
from tests.support.server import serving
from tests.support.turns import all_events, holding, open_writer, token, until_events

SLOW = "scripted?tokens=100&delay_ms=100"  # it does not end before a fault, however slow the machine is
FAST = "scripted?tokens=100&delay_ms=5"  # who takes over says the same words
AS_READ = "scripted?tokens=100&delay_ms=30"
LEASE = "1.5"


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


async def test_a_killed_workers_turn_is_taken_over_and_its_text_is_exact(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with (
        serving(database_url, tmp_path, SLOW, LEASE_SECONDS=LEASE) as one,
        serving(database_url, tmp_path, FAST, LEASE_SECONDS=LEASE) as two,
    ):
        with two.held():  # so that it is the other that answers
            started = await person.begin(one.url)
        async with person.watch(two.url, started["session_id"], after=0) as watching:
            await watching.until("token", count=3)
            one.kill()
            reset = await watching.until("reset")
            frames = await watching.rest()
        assert (reset.data["attempt"], reset.data["reason"]) == (2, "worker_lost")
        check_whole_turn(frames)
        after_reset = [frame.type for frame in frames if frame.seq > reset.seq]
        assert "retrieval_start" not in after_reset, "finished stages are not repeated"
        assert frames[-1].type == "done"


async def test_a_frozen_worker_that_wakes_up_late_writes_nothing(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with (
        serving(database_url, tmp_path, SLOW, LEASE_SECONDS=LEASE) as one,
        serving(database_url, tmp_path, AS_READ, LEASE_SECONDS=LEASE) as two,
    ):
        with two.held():  # so that it is the other that answers
            started = await person.begin(one.url)
        async with person.watch(two.url, started["session_id"], after=0) as watching:
            await watching.until("token", count=3)
            one.signal(signal.SIGSTOP)
            reset = await watching.until("reset")
            await watching.until("token", count=3)
            one.signal(signal.SIGCONT)
            frames = await watching.rest()
        check_whole_turn(frames)
        assert sum(frame.type == "reset" for frame in frames) == 1, reset
        again = await person.start(two.url, session_id=started["session_id"])
        check_whole_turn(await person.read(one.url, started["session_id"], again["after"]))


async def test_what_a_worker_writes_that_was_frozen_past_its_lease_the_database_refuses(
    database_url: str, log: Sessions
) -> None:
    """It tries, events and a checkpoint, and says so itself: no clock and no lease of its own keeps it from that."""
    turn = await holding(log, lease_seconds=0.3)
    with _zombie(database_url, turn) as zombie:
        try:
            await until_events(log, turn.session_id, 4)
            _freeze(zombie)
            claim = await _taken_over(log, turn)
            taken = HeldTurn(claim.session_id, claim.turn_id, claim.attempt, claim.next_seq)
            async with open_writer(database_url) as writer:
                await writer.append(taken, token("begun anew"))
                await writer.flush(taken)
            zombie.send_signal(signal.SIGCONT)
            output, _ = await asyncio.to_thread(zombie.communicate, timeout=20)
        finally:
            zombie.kill()
    said = json.loads(output)
    assert (said["refused"], said["by_the_database"]) == (["token", "checkpoint"], 2)
    events = await all_events(log, turn.session_id)
    kinds = ["turn_started", *["token"] * said["accepted"], "reset", "token"]
    assert [(event.seq, event.type) for event in events] == list(enumerate(kinds, 1))
    async with log.pool.connection() as connection:
        assert await (await connection.execute("select from secrets where name = 'zombie'")).fetchall() == []


def _zombie(database_url: str, turn: HeldTurn) -> "subprocess.Popen[bytes]":
    names = (*turn.names, str(turn.attempt), str(turn.next_seq))
    command = [sys.executable, "-m", "tests.support.zombie", database_url, *names]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)


def _freeze(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)


async def _taken_over(log: Sessions, turn: HeldTurn) -> Claim:
    """As soon as its lease has run out."""
    async with asyncio.timeout(10):
        while True:
            candidate = Candidate(turn.session_id, turn.turn_id, turn.attempt)
            if claim := await log.claim(candidate, "another", 30, "worker_lost"):
                return claim


async def test_a_worker_that_is_told_to_stop_hands_its_turn_back(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with (
        serving(database_url, tmp_path, SLOW, DRAIN_SECONDS="0.6") as one,
        serving(database_url, tmp_path, FAST) as two,
    ):
        with two.held():  # so that it is the other that answers
            started = await person.begin(one.url)
        async with (
            person.watch(one.url, started["session_id"], after=0) as here,
            person.watch(two.url, started["session_id"], after=0) as watching,
        ):
            await here.until("token", count=3)
            status = asyncio.create_task(asyncio.to_thread(one.stop))
            await here.rest()
            with pytest.raises(httpx.TransportError):  # nobody comes back here on a connection that was kept
                await person.client.get(f"{one.url}/healthz")
            frames = await watching.rest()
            assert await status == 0, one.output
        check_whole_turn(frames)
        assert frames[-1].type == "done"
        assert sum(frame.type == "reset" for frame in frames) == 1


async def test_a_turn_that_no_worker_survives_ends_with_worker_lost(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with serving(database_url, tmp_path, SLOW, WORKER="off") as tail:
        started = await person.start(tail.url)
        async with person.watch(tail.url, started["session_id"], after=0) as watching:
            for attempt in range(1, 4):
                with serving(database_url, tmp_path, SLOW, LEASE_SECONDS="1") as worker:
                    await watching.until("token" if attempt == 1 else "reset")
                    worker.kill()
            with serving(database_url, tmp_path, SLOW, LEASE_SECONDS="1"):
                frames = await watching.rest()
    assert (frames[-1].type, frames[-1].data["code"]) == ("error", "worker_lost")
    check_whole_turn(frames)


async def test_a_model_that_stays_silent_ends_the_turn_with_an_error_and_keeps_the_text(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    for model, setting, code in (
        ("scripted?tokens=5&delay_ms=5000", {"FIRST_TOKEN_TIMEOUT_SECONDS": "0.5"}, "model_timeout"),
        ("scripted?tokens=5&delay_ms=700", {"TOKEN_TIMEOUT_SECONDS": "0.3"}, "model_timeout"),
        ("scripted?tokens=500&delay_ms=20", {"TURN_TIMEOUT_SECONDS": "1"}, "turn_timeout"),
    ):
        with serving(database_url, tmp_path, model, **setting) as server:
            started = await person.start(server.url)
            frames = await person.read(server.url, started["session_id"])
            check_whole_turn(frames)
            assert (frames[-1].type, frames[-1].data["code"]) == ("error", code)
            snapshot = await person.snapshot(server.url, started["session_id"])
            assert snapshot["messages"][-1]["status"] == "error"
            assert snapshot["messages"][-1]["content"] == frames[-1].data["content"]
