"""What strangers send, at random and on purpose: frames, cursors, the safety gate, files to ingest."""

import gzip
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import StringConstraints, TypeAdapter, ValidationError

from functions import sessions, tail
from functions.frames import OPENING, PING, encode
from graph.eventlog.events import Event, encode_data, storable
from graph.red_flags import categories, emergency_text, find_flag
from graph.retrieval.documents import Document, Skipped
from graph.retrieval.formats import READERS, read
from tests.support.sse_parsers import Seen, by_httpx_sse, by_node, by_sseclient, node_has_eventsource

STAMP = "2026-11-24T18:00:00.000Z"
TYPES = ["token", "done", "cancelled", "turn_started"]
MEGABYTE = 1_000_000
FORGERIES = [
    "\r\n\r\ndata: forged",
    "\n\nid: 999\nevent: done\ndata: {}\n\n",
    "\r\rid: 999\r\rdata: forged\r\r",
    "x\ndata: second line",
    "id: 7",
    "\ufeffdata: forged\n\n",
    "\u2028\u2028data: forged\u2029\u2029",
    "\x85\x85data: forged\x0b\x0c\x1c\x1d\x1e",
    "\x00\nid: \x00\n\n",
    ":comment\n\nretry: 1\n\n",
    "\\r\\n\\r\\ndata: forged",
    '"}\n\nevent: done\ndata: {"x": "',
    "a" * MEGABYTE + "\n\ndata: forged\n\n",
]
texts = st.lists(st.sampled_from(FORGERIES[:-1]) | st.text(max_size=40), max_size=4).map("".join)


def _body(contents: list[str]) -> bytes:
    """As a tail sends them: an opening, the frames, pings in between."""
    frames = [
        encode(Event(UUID(int=1), seq, UUID(int=2), 1, TYPES[seq % 4], encode_data({"content": storable(text)}, STAMP)))
        for seq, text in enumerate(contents, start=1)
    ]
    return OPENING + PING.join(frames)


def _expected(contents: list[str]) -> list[Seen]:
    return [
        Seen(str(seq), TYPES[seq % 4], encode_data({"content": storable(text)}, STAMP))
        for seq, text in enumerate(contents, start=1)
    ]


def _ours(seen: list[Seen]) -> list[Seen]:
    return [event for event in seen if event.type != "ping"]


@given(st.lists(texts, max_size=5))
@settings(max_examples=200)
@example(FORGERIES)
@pytest.mark.parametrize("parse", [by_httpx_sse, by_sseclient])
def test_no_text_forges_a_frame(parse: Callable[[bytes], list[Seen]], contents: list[str]) -> None:
    seen = _ours(parse(_body(contents)))
    assert seen == _expected(contents)
    assert [json.loads(event.data)["content"] for event in seen] == [storable(text) for text in contents]


def test_no_text_forges_a_frame_for_a_third_parser(say: Callable[[str], None]) -> None:
    if not node_has_eventsource():
        say("NOT TESTED with Node's EventSource: this Node has none")
        pytest.skip("Node without EventSource")
    assert by_node(_body(FORGERIES), TYPES) == _expected(FORGERIES)


@given(st.text(st.characters(codec=None, categories=None), max_size=20))
@settings(max_examples=200)
@example("\ud800 lone \udfff")
def test_what_is_stored_can_be_encoded_and_what_cannot_is_refused_at_once(text: str) -> None:
    """A frame with half a character would break its reader: orjson refuses it before anything is written."""
    encode_data({"content": storable(text)}, STAMP).encode()
    try:
        said = encode_data({"content": text}, STAMP)
    except TypeError:
        assert text.encode("utf-8", "replace").decode() != text
    else:
        assert json.loads(said.encode())["content"] == text


CURSORS = st.from_regex(r"\A[0-9٠-٩+\-_ .eE\n]{0,25}\Z") | st.text(max_size=30)


@given(CURSORS)
@settings(max_examples=300)
@example("1\n")
@example("9" * 18)
@example("9" * 19)
@example("٣")
@example("1_0")
def test_a_cursor_is_ascii_digits_that_fit_the_log_or_it_is_refused(text: str) -> None:
    good = 0 < len(text) <= 18 and all(c in "0123456789" for c in text)
    for pattern in (tail.CURSOR, tail.CURSOR_OR_NONE):
        try:
            given_text = TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)]).validate_python(text)
        except ValidationError:
            assert not good
        else:
            assert good or (text == "" and pattern == tail.CURSOR_OR_NONE)
            assert int(given_text or 0) < 2**63


@given(st.text(max_size=60) | st.builds("{}_{}".format, st.datetimes(), st.uuids()))
@settings(max_examples=300)
def test_a_place_in_the_list_of_sessions_is_one_or_is_refused(before: str) -> None:
    try:
        place = sessions._position(before)
    except RequestValidationError:
        return
    assert place is not None
    assert isinstance(place[0], datetime)
    assert isinstance(place[1], UUID)


ALARMS = ["I have crushing chest pain", "I want to kill myself", "he is not breathing", "what helps against hay fever?"]


@given(st.lists(st.sampled_from(ALARMS) | st.text(max_size=30), max_size=5).map(" ".join))
@settings(max_examples=300)
@example("\x00" * 4000)
@example("a" * 4000)
@example("not " * 1000)
@example("chest " * 600)
@example("\u0301" * 4000)
@example("I have chest pain. " * 200)
def test_the_safety_gate_answers_every_text_and_always_alike(message: str) -> None:
    began = datetime.now(UTC)
    flag = find_flag(message[:4000])
    assert flag == find_flag(message[:4000])
    assert flag is None or (flag.category in categories() and emergency_text(flag.category, "international"))
    assert (datetime.now(UTC) - began).total_seconds() < 5, "no text may hold the gate up"


HEADS = {
    ".xml": [b"<Document><QAPairs>", b'<?xml version="1.0" encoding="x"?>', b"<!DOCTYPE a [<!ENTITY b '&c;'>]>"],
    ".pdf": [b"%PDF-1.7\n", b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n", b"xref\n0 1\ntrailer<</Root 1 0 R>>"],
    ".jsonl": [b'{"id": "a", "text": "It helps."}\n', b'{"text": 1}\n', b"[[[["],
    ".html": [b"<html><title>x</title><p>It helps.</p>", b'<meta charset="nothing">', b"<!--", b"<script>"],
    ".md": [b"---\ntitle: x\n---\n# Cold\n\nRest helps.\n", b"---\n", b"```\n", b"[a](b)" * 5],
}
numbers = itertools.count()


@given(st.data())
@settings(max_examples=60)
@pytest.mark.parametrize("suffix", sorted(READERS))
def test_a_broken_file_is_named_and_never_ends_an_ingestion(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = {".markdown": ".md", ".txt": ".md", ".htm": ".html", ".jsonl.gz": ".jsonl"}.get(suffix, suffix)
    pieces = data.draw(st.lists(st.sampled_from(HEADS[kind]) | st.binary(max_size=60), max_size=6))
    content = b"".join(pieces)
    if suffix.endswith(".gz") and data.draw(st.booleans()):
        content = gzip.compress(content)[: data.draw(st.integers(0, 200))]
    path: Path = tmp_path_factory.getbasetemp() / f"fuzzed-{next(numbers) % 4}{suffix}"
    path.write_bytes(content)
    for found in read(path, "fuzzed"):
        assert isinstance(found, Document | Skipped)
        if isinstance(found, Document):
            assert found.passages
            repr(found).encode()  # what cannot be encoded cannot be stored
            assert "\x00" not in "".join(passage.text for passage in found.passages)
