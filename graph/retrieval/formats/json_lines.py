"""JSON lines, also packed with gzip: a document a line, with `text` and, if it has them, `id`, `title`, `heading`,
`url`. Read line by line: the file may be of any size."""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from graph.retrieval.documents import Document, Section, Skipped, UnreadableFile, compose, paragraphs, title_from

LINE_MAX_BYTES = 2_000_000
FLAT_LIST_ITEM = re.compile(r"(?<=[.:;)])\s+- (?=[A-Z0-9])")


def read(path: Path, default_id: str) -> Iterator[Document | Skipped]:
    with _opened(path) as file:
        number = 0
        try:
            while line := file.readline(LINE_MAX_BYTES + 1):
                number += 1
                if line.strip():
                    yield _document(line, f"{path}:{number}", f"{default_id}-{number}", file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UnreadableFile(f"no whole gzip file: it breaks off after line {number}") from error


def unfold_lists(text: str) -> str:
    """Lists that lost their line breaks: ` - ` after the end of a sentence begins an item."""
    return FLAT_LIST_ITEM.sub("\n\n", text)


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _document(line: bytes, name: str, default_id: str, file: BinaryIO) -> Document | Skipped:
    try:
        if len(line) > LINE_MAX_BYTES:
            while not line.endswith(b"\n") and (line := file.readline(LINE_MAX_BYTES)):
                pass
            raise UnreadableFile(f"longer than {LINE_MAX_BYTES:,} bytes")
        said = orjson.loads(line)
        if not isinstance(said, dict) or not isinstance(said.get("text"), str):
            raise UnreadableFile('no object with a "text"')
        return _compose(said, default_id)
    except orjson.JSONDecodeError as error:
        return Skipped(name, f"no JSON: {error}")
    except UnreadableFile as error:
        return Skipped(name, str(error))


def _compose(said: dict[str, Any], default_id: str) -> Document:
    document_id = str(said.get("id") or default_id)
    section = Section(str(said.get("heading") or ""), paragraphs(unfold_lists(said["text"])))
    return compose(
        document_id, str(said.get("title") or title_from(document_id)), str(said.get("url") or ""), [section]
    )
