"""Files → documents → passages → sentences. Pure but for `read`."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import yaml

PASSAGE_MAX_WORDS = 150
SUFFIXES = frozenset({".md", ".markdown", ".txt"})
FILE_MAX_BYTES = 2_000_000

FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
HEADING = re.compile(r"^##\s+(.+?)\s*#*\s*$", re.MULTILINE)
TITLE = re.compile(r"^#\s+(.+?)\s*$", re.MULTILINE)
# What every starter article ends with: true of all of them, an answer to nothing.
BOILERPLATE = re.compile(r"^This is general information\b.*$", re.MULTILINE)
LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|_{1,3}|`{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)")
SUBHEADING = re.compile(r"^#{3,6}\s+", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]?\s+(?=[\"'“‘(]?[A-Z0-9À-Þ])")
ABBREVIATION = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|St|vs|e\.g|i\.e|etc|approx|No|Fig)\.$")


class UnreadableFile(Exception):
    """Its text says what is wrong with the file."""


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


def read(path: Path, default_id: str) -> Document:
    """Markdown, with or without front matter, or plain text. Raises UnreadableFile."""
    if path.suffix.lower() not in SUFFIXES:
        raise UnreadableFile(f"only {', '.join(sorted(SUFFIXES))} can be read")
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise UnreadableFile(f"larger than {FILE_MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFile("no UTF-8 text") from error
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from error
    return parse(text.replace("\x00", ""), default_id)


def parse(text: str, default_id: str) -> Document:
    about, body = _front_matter(text)
    found = TITLE.search(body)
    title = about.get("title") or (found.group(1) if found else default_id.rsplit("/", 1)[-1].replace("-", " "))
    passages = tuple(_passages(TITLE.sub("", body, count=1)))
    if not passages:
        raise UnreadableFile("no text in it")
    return Document(about.get("id") or default_id, title, about.get("url", ""), passages)


def sentences(text: str) -> list[str]:
    """In order. A list item is a sentence, also without a full stop."""
    found: list[str] = []
    for block in _blocks(text):
        start = 0
        for end in SENTENCE_END.finditer(block):
            if not ABBREVIATION.search(block[start : end.start()]):
                found.append(block[start : end.end()].strip())
                start = end.end()
        found.append(block[start:].strip())
    return [sentence for sentence in found if any(c.isalnum() for c in sentence)]


def _blocks(text: str) -> list[str]:
    """Paragraphs and list items, each on one line and without markup."""
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        parts: list[str] = []
        for line in paragraph.splitlines():
            if LIST_ITEM.match(line) or not parts:
                parts.append(LIST_ITEM.sub("", line).strip())
            else:
                parts[-1] += " " + line.strip()
        blocks += [_plain(part) for part in parts]
    return blocks


def _plain(markdown: str) -> str:
    text = LINK.sub(r"\1", IMAGE.sub("", SUBHEADING.sub("", markdown)))
    return " ".join(EMPHASIS.sub(r"\2", text).split())


def _front_matter(text: str) -> tuple[dict[str, str], str]:
    found = FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    try:
        about = yaml.safe_load(found.group(1))
    except yaml.YAMLError as error:
        raise UnreadableFile(f"its front matter is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(about, dict):
        raise UnreadableFile("its front matter is no list of `name: value`")
    return {key: str(about[key]).strip() for key in ("id", "title", "url") if about.get(key)}, text[found.end() :]


def _passages(body: str) -> list[Passage]:
    """What stands before the first `##` has no heading."""
    lead, *sections = HEADING.split(body)
    pairs = [("", lead), *zip(sections[::2], sections[1::2], strict=True)]
    return [passage for heading, text in pairs for passage in _cut(heading, sentences(BOILERPLATE.sub("", text)))]


def _cut(heading: str, said: list[str]) -> list[Passage]:
    """Between sentences, into parts of about equal length when it is too long for one."""
    words = sum(len(sentence.split()) for sentence in said)
    limit = words / -(-words // PASSAGE_MAX_WORDS) if words else 0
    parts: list[list[str]] = []
    length = 0.0
    for sentence in said:
        if not parts or length >= limit:
            parts.append([])
            length = 0
        parts[-1].append(sentence)
        length += len(sentence.split())
    return [Passage(heading, tuple(part)) for part in parts]
