"""The Caddyfile that is shipped, in front of a replica."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from functions.settings import Settings
from tests.support.caddy import CADDY, CADDYFILE, proxying
from tests.support.client import Person, check_whole_turn
from tests.support.server import serving

TWO_SECONDS = "scripted?tokens=50&delay_ms=40"
RUN = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "What?"}]}}


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


def twenty_times_as_hasty(folder: Path) -> Path:
    """So that a test need not wait as long as the proxy does."""
    text = CADDYFILE.read_text()
    made = folder / "Caddyfile"
    assert "replicas 20s" in text, "the limit of a silent tail is another one now"
    made.write_text(text.replace("replicas 20s", "replicas 1s").replace("replicas 130s", "replicas 6500ms"))
    return made


async def test_who_waits_for_a_whole_answer_may_hear_nothing_for_longer_than_a_tail(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with (
        serving(database_url, tmp_path, TWO_SECONDS) as server,
        proxying(server.url, file=twenty_times_as_hasty(tmp_path)) as url,
    ):
        replies = await asyncio.gather(
            person.client.post(f"{url}/chat", json={"message": "What?"}),
            person.client.post(f"{url}/runs/wait", json=RUN),
        )
    assert [reply.status_code for reply in replies] == [200, 200], [reply.text for reply in replies]


async def test_a_tail_of_a_replica_that_has_gone_silent_is_ended(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    """The replica holds its connections open and answers nothing; the client can go elsewhere."""
    with (
        serving(database_url, tmp_path, TWO_SECONDS) as server,
        proxying(server.url, file=twenty_times_as_hasty(tmp_path)) as url,
    ):
        started = await person.start(url)
        async with person.watch(url, started["session_id"], after=0) as watching:
            await watching.until("token", count=3)
            with server.held(), pytest.raises(Exception, match=r"(?i)peer closed|incomplete|terminated|ended"):
                await asyncio.wait_for(watching.rest(), 10)
        frames = watching.frames + await person.read(url, started["session_id"], watching.frames[-1].seq)
    check_whole_turn(frames)


def adapted(**environment: str) -> Any:
    command = [str(CADDY), "adapt", "--config", str(CADDYFILE)]
    variables = {**os.environ, "PULSELINE_ADDRESS": ":8080", **environment}
    return json.loads(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)


def each(made: Any, key: str) -> list[Any]:
    """Every value of that name, however deep."""
    if isinstance(made, dict):
        return [value for name, value in made.items() if name == key] + each(list(made.values()), key)
    return [found for part in made for found in each(part, key)] if isinstance(made, list) else []


def test_the_proxy_hears_soon_of_new_replicas_and_keeps_no_frame_back() -> None:
    """Latency alone does not show it: small frames come through a proxy that buffers or compresses at once."""
    made = adapted()
    assert set(each(made, "refresh")) == {2_000_000_000}
    assert set(each(made, "flush_interval")) == {-1}
    assert {"not": [{"path": ["/chat/*"]}]} in [match for some in each(made, "match") for match in some]
    limits = sorted(limit / 1e9 for limit in each(made, "read_timeout"))
    assert limits[0] > 3 * Settings.model_fields["heartbeat_seconds"].default
    assert limits[-1] > Settings.model_fields["turn_timeout_seconds"].default
