"""The labelled questions and messages that the evaluation and the tests share."""

from pathlib import Path
from typing import Literal, NamedTuple

import orjson

SUPPORT = Path(__file__).parents[1] / "support"
Split = Literal["tune", "judge"]


class Question(NamedTuple):
    """`relevant`: the documents that answer it, any of them; none: the library does not answer it."""

    text: str
    relevant: frozenset[str]
    split: str = "judge"


class Message(NamedTuple):
    """`expected`: `now`, `topic` or `nothing`. `kind` says what makes it hard."""

    expected: str
    category: str
    kind: str
    text: str


def starter() -> list[Question]:
    rows = [line.split("\t") for line in _lines("questions.tsv")]
    return [Question(text, frozenset(documents.split()), split) for split, text, documents in rows]


def medquad(folder: Path) -> list[Question]:
    lines = (folder / "questions.jsonl").read_bytes().splitlines()
    return [Question(said["question"], frozenset(said["relevant"])) for said in map(orjson.loads, lines)]


def messages() -> list[Message]:
    return [Message(*line.split("\t")) for line in _lines("red_flags.tsv")]


def held_out_messages() -> list[Message]:
    """On which the rules were never tuned."""
    return [Message(*line.split("\t")) for line in _lines("red_flags_holdout.tsv")]


def _lines(name: str) -> list[str]:
    lines = (SUPPORT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
