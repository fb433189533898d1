"""HTML: what stands in headings, paragraphs, lists and tables; no menus, scripts or forms."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from graph.retrieval.documents import Document, Section, UnreadableFile, compose, title_from

UNSAID = frozenset({"script", "style", "noscript", "template", "svg", "nav", "footer", "aside", "form", "button"})
INLINE = frozenset(
    {"a", "abbr", "b", "cite", "code", "em", "font", "i", "mark", "q", "s", "small", "span", "strong"}
    | {"sub", "sup", "time", "u", "wbr"}
)
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([\w-]+)", re.IGNORECASE)
DECLARED_WITHIN_BYTES = 2048


def read(path: Path, default_id: str) -> Iterator[Document]:
    page = _Page()
    page.feed(_decoded(path.read_bytes()))
    page.close()
    title = page.title or page.page_title or title_from(default_id)
    yield compose(default_id, title, page.url, page.sections())


def _decoded(data: bytes) -> str:
    """UTF-8, else what the page itself says it is."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        declared = CHARSET.search(data[:DECLARED_WITHIN_BYTES])
        try:
            if declared is not None:
                return data.decode(declared[1].decode())
        except (UnicodeDecodeError, LookupError):
            pass
        raise UnreadableFile("no UTF-8 text") from error


class _Page(HTMLParser):
    """`title` is the first <h1>, `page_title` the <title>."""

    def __init__(self) -> None:
        super().__init__()
        self.title = self.page_title = self.url = ""
        self._found: list[tuple[str, list[str]]] = [("", [])]
        self._text: list[str] = []
        self._unsaid: list[str] = []

    def sections(self) -> Iterator[Section]:
        self._end_block()
        for heading, blocks in self._found:
            yield Section(heading, tuple(blocks))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        if tag == "link" and about.get("rel") == "canonical":
            self.url = about.get("href") or ""
        if tag in UNSAID:
            self._unsaid.append(tag)
        if tag in ("td", "th"):
            self._text.append(" ")
        elif tag not in INLINE:
            self._end_block()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unsaid:  # those within it that were never closed end with it
            del self._unsaid[self._unsaid.index(tag) :]
        if tag == "title":
            self.page_title = self.page_title or self._taken()
        elif tag == "h1" and not self.title:
            self.title = self._taken()
        elif tag in HEADINGS:
            self._found.append((self._taken(), []))
        elif tag not in INLINE and tag not in ("td", "th"):
            self._end_block()

    def handle_data(self, data: str) -> None:
        if not self._unsaid:
            self._text.append(data)

    def _taken(self) -> str:
        text = " ".join("".join(self._text).split())
        self._text.clear()
        return text

    def _end_block(self) -> None:
        if text := self._taken():
            self._found[-1][1].append(text)
