"""Documents → passages → sentences. Pure."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PASSAGE_MAX_WORDS = 130
SENTENCE_MAX_WORDS = 80  # what is longer is no sentence, but a list or a table without marks
OVERLAP_MAX_WORDS = 30

SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]?\s+(?=[\"'“‘(]?[A-Z0-9À-Þ])")
ABBREVIATION = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|St|vs|e\.g|i\.e|etc|approx|No|Fig)\.$")


class UnreadableFile(Exception):
    """Its text says what is wrong with the file."""


class Skipped(NamedTuple):
    """What could not be read: a file, or a line of one, as `name:line`."""

    name: str
    reason: str


class Section(NamedTuple):
    """`blocks`: paragraphs and list items, each on one line and without markup."""

    heading: str
    blocks: tuple[str, ...]


class Passage(NamedTuple):
    """A section of a document, or a part of a long one. `text` is the sentences, joined by spaces."""

    heading: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


class Document(NamedTuple):
    document_id: str
    title: str
    url: str
    passages: tuple[Passage, ...]

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()


def compose(document_id: str, title: str, url: str, sections: Iterable[Section]) -> Document:
    """Raises UnreadableFile when there is no text."""
    passages = tuple(passage for section in sections for passage in _cut(section.heading, sentences(section.blocks)))
    if not passages:
        raise UnreadableFile("no text in it")
    return Document(_clean(document_id), _clean(title), _clean(url), passages)


def title_from(default_id: str) -> str:
    return default_id.rsplit("/", 1)[-1].replace("-", " ")


def paragraphs(text: str) -> tuple[str, ...]:
    """The blocks of plain text: parted by empty lines."""
    return tuple(part for part in re.split(r"\n\s*\n", text) if part.strip())


def sentences(blocks: Iterable[str]) -> list[str]:
    """In order. A list item is a sentence, also without a full stop."""
    found = [sentence for block in blocks for part in _parts(_clean(block)) for sentence in _of_sane_length(part)]
    return [sentence for sentence in found if any(c.isalnum() for c in sentence)]


def _parts(block: str) -> Iterator[str]:
    start = 0
    for end in SENTENCE_END.finditer(block):
        if not ABBREVIATION.search(block[start : end.start()]):
            yield block[start : end.end()].strip()
            start = end.end()
    yield block[start:].strip()


def _of_sane_length(sentence: str) -> Iterator[str]:
    words = sentence.split()
    count = -(-len(words) // SENTENCE_MAX_WORDS)
    size = -(-len(words) // max(1, count))
    for start in range(0, len(words), max(1, size)):
        yield " ".join(words[start : start + size])


def _clean(text: str) -> str:
    """On one line; Postgres holds neither a NUL nor half a surrogate pair."""
    return " ".join(text.replace("\x00", " ").encode("utf-8", "replace").decode().split())


def _cut(heading: str, said: list[str]) -> list[Passage]:
    """Between sentences, into parts of about equal length when it is too long for one. Each part but the first begins
    with the last sentence of the part before, so that what leans on that sentence still stands beside it."""
    words = sum(len(sentence.split()) for sentence in said)
    limit = words / -(-words // PASSAGE_MAX_WORDS) if words else 0
    parts: list[list[str]] = []
    length = 0.0
    for sentence in said:
        if not parts or length >= limit:
            parts.append(_overlap(parts))
            length = 0
        parts[-1].append(sentence)
        length += len(sentence.split())
    return [Passage(_clean(heading), tuple(part)) for part in parts]


def _overlap(parts: list[list[str]]) -> list[str]:
    last = parts[-1][-1] if parts else ""
    return [last] if last and len(last.split()) <= OVERLAP_MAX_WORDS else []
