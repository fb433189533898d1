"""PDF: a section a page, so that an answer can name the page that it quotes."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from graph.retrieval.documents import Document, Section, UnreadableFile, compose, title_from

HYPHENATED = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
LIST_MARK = re.compile(r"\n\s*[•‣▪●–]\s*")


def read(path: Path, default_id: str) -> Iterator[Document]:
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it mends what it can, and says so a line each
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFile("it needs a password")
        pages = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "").strip()
    except (UnreadableFile, OSError):
        raise
    except Exception as error:  # of a broken file: whatever its parser stumbles over
        raise UnreadableFile(f"no PDF that can be read: {error}") from error
    if not any(map(str.strip, pages)):
        raise UnreadableFile("no text in it: scanned pages can't be read")
    sections = (Section(f"Page {number}", _blocks(text)) for number, text in enumerate(pages, start=1))
    yield compose(default_id, title or title_from(default_id), "", sections)


def _blocks(text: str) -> tuple[str, ...]:
    return tuple(re.split(r"\n\s*\n", LIST_MARK.sub("\n\n", HYPHENATED.sub("", text))))
