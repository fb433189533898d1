"""What the peers are measured with must see every token that a server loses or repeats, however it sends them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import orjson
import pytest

from loadtests.compare import peer_measures, peers, with_peers
from loadtests.compare.peer_client import Frame, Frames, Reading
from loadtests.compare.peer_measures import Comeback, Resumed, Turns, resume

TURN = Turns(1, 1, 60, 4)
READERS = 5
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nlocation: /threads/t/runs/r/stream\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
Resumes = Callable[[int], int | None]


def _frame(number: int, text: str, newline: str = "\n", kind: str = "AIMessageChunk") -> bytes:
    data = orjson.dumps([{"type": kind, "content": text}, {"langgraph_node": "answer"}]).decode()
    return newline.join((f"id: {number}", "event: messages", f"data: {data}", "", "")).encode()


def _read(*frames: bytes) -> Reading:
    reading, parser = Reading(4), Frames()
    for frame in parser.feed(b"".join(frames)):
        reading.receive(frame)
    return reading


def test_tokens_are_counted_by_their_numbers_not_by_frames() -> None:
    joined = _read(_frame(1, "w0 w1 w2 "), _frame(2, "w3 "))
    assert (joined.lost, joined.repeated, joined.frames, joined.last_event_id) == (0, 0, 2, "2")
    wrong = _read(_frame(1, "w0 "), _frame(2, "w2 w2 "), _frame(3, "w2 w3 "))
    assert (wrong.lost, wrong.repeated) == (1, 2)


def test_the_whole_message_at_the_end_repeats_nothing() -> None:
    text = "w0 w1 w2 w3 "
    assert _read(_frame(1, text), _frame(2, text, kind="ai")).repeated == 0


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_frames_are_the_same_however_their_bytes_are_cut(newline: str) -> None:
    sent = b"".join(_frame(n, f"w{n} ", newline) for n in range(20)).replace(
        b"id: 3", b": heartbeat" + newline.encode()
    )
    whole = list(Frames().feed(sent))
    assert [frame.id for frame in whole[:3]] == ["0", "1", "2"]
    parser, found = Frames(), list[Frame]()
    for n in range(len(sent)):
        found += parser.feed(sent[n : n + 1])
    assert found == whole
    assert len([frame for frame in found if frame.event == "messages"]) == 20


@asynccontextmanager
async def _server(resumes: Resumes, *, hangs: bool = False) -> AsyncIterator[str]:
    """The LangGraph wire for one answer, two tokens a frame, whose id is the number of tokens so far. A reader who
    comes back after `n` is told what follows `resumes(n)`, and is refused where that is None."""
    said, more, chance = 0, asyncio.Condition(), Random(0)
    tasks = set[asyncio.Task[None] | None]()

    async def say() -> None:
        nonlocal said
        while said < TURN.tokens:
            await asyncio.sleep(TURN.pause_ms / 1000)
            said += 2
            async with more:
                more.notify_all()

    async def tell(writer: asyncio.StreamWriter, after: int) -> None:
        while after < TURN.tokens:
            async with more:
                while said <= after:
                    await more.wait()
            sent = b"".join(_frame(n + 2, f"w{n} w{n + 1} ", "\r\n") for n in range(after, said, 2))
            after = said
            while sent:
                piece, sent = sent[: (size := chance.randint(1, 400))], sent[size:]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
        if not hangs:
            writer.write(b"0\r\n\r\n")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("GET"):
                after = int(head.partition("Last-Event-ID: ")[2].partition("\r\n")[0])
                begins = 0 if after == -1 else resumes(after)
                writer.write(REFUSED if begins is None else STREAM)
                if begins is not None:
                    await tell(writer, begins)
            elif "/runs/stream" in head:
                tasks.add(asyncio.create_task(say()))
                writer.write(STREAM)
                await tell(writer, 0)
            else:
                writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"thread_id":"t"}')
            await reader.read()  # until the client has left
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*filter(None, tasks))


async def _found(resumes: Resumes, *, hangs: bool = False) -> Resumed:
    async with _server(resumes, hangs=hangs) as url:
        found = Resumed()
        found.add(await resume(url, Comeback(READERS, TURN, together=False), seed=1))
        return found


async def test_a_server_that_goes_on_where_a_reader_was_is_whole() -> None:
    assert await _found(lambda after: after) == Resumed(readers=READERS)


async def test_a_server_that_loses_two_tokens_when_a_reader_comes_back_is_caught() -> None:
    found = await _found(lambda after: after + 2)
    assert (found.losers, found.lost, found.repeaters, found.unended) == (READERS, 2 * READERS, 0, 0)


async def test_a_server_that_says_tokens_again_when_a_reader_comes_back_is_caught() -> None:
    found = await _found(lambda after: after - 2)
    assert (found.repeaters, found.repeated, found.losers, found.unended) == (READERS, 2 * READERS, 0, 0)


async def test_a_server_that_refuses_readers_who_come_back_is_told_from_one_that_loses() -> None:
    found = await _found(lambda after: None)
    assert (found.refused, found.unended) == (READERS, READERS)


async def test_a_server_that_never_ends_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_measures, "LATE_SECONDS", 0.3)
    found = await _found(lambda after: after, hangs=True)
    assert found.unended == READERS
    assert not found.whole


def test_a_peer_that_is_not_installed_exits_2_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    assert with_peers.main(["--peer", "Pulseline", "--peer", "Aegra", "--out", str(tmp_path)]) == 2
    assert "NOT INSTALLED: Aegra." in capsys.readouterr().out
