"""Files → documents: one module a format, chosen by the file's suffix."""

from collections.abc import Callable, Iterator
from pathlib import Path

from graph.retrieval.documents import Document, Skipped, UnreadableFile
from graph.retrieval.formats import html, json_lines, markdown, medquad, pdf

Read = Callable[[Path, str], Iterator[Document | Skipped]]
TEXT_MAX_BYTES = 2_000_000
PDF_MAX_BYTES = 100_000_000

READERS: dict[str, tuple[Read, int | None]] = {
    ".md": (markdown.read, TEXT_MAX_BYTES),
    ".markdown": (markdown.read, TEXT_MAX_BYTES),
    ".txt": (markdown.read, TEXT_MAX_BYTES),
    ".html": (html.read, TEXT_MAX_BYTES),
    ".htm": (html.read, TEXT_MAX_BYTES),
    ".xml": (medquad.read, TEXT_MAX_BYTES),
    ".pdf": (pdf.read, PDF_MAX_BYTES),
    ".jsonl": (json_lines.read, None),
    ".jsonl.gz": (json_lines.read, None),
}


def suffix(path: Path) -> str:
    name = path.name.lower()
    return next((known for known in READERS if name.endswith(known)), "")


def default_id(path: Path) -> str:
    """The path without its suffix."""
    return path.as_posix()[: len(path.as_posix()) - len(suffix(path) or path.suffix)]


def read(path: Path, default_id: str) -> Iterator[Document | Skipped]:
    """The file's documents, one by one; what can't be read of it is named and the rest goes on."""
    known = READERS.get(suffix(path))
    try:
        if known is None:
            raise UnreadableFile(f"only {', '.join(sorted(READERS))} can be read")
        reader, max_bytes = known
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise UnreadableFile(f"larger than {max_bytes:,} bytes")
        yield from reader(path, default_id)
    except UnreadableFile as error:
        yield Skipped(str(path), str(error))
    except OSError as error:
        yield Skipped(str(path), error.strerror or str(error))
