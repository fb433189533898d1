"""Markdown, with or without front matter (`id`, `title`, `url`), and plain text."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from graph.retrieval.documents import Document, Section, UnreadableFile, compose, title_from

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


def read(path: Path, default_id: str) -> Iterator[Document]:
    try:
        yield parse(path.read_text(encoding="utf-8-sig"), default_id)
    except UnicodeDecodeError as error:
        raise UnreadableFile("no UTF-8 text") from error


def parse(text: str, default_id: str) -> Document:
    about, body = _front_matter(text.replace("\r\n", "\n"))
    found = TITLE.search(body)
    title = about.get("title") or (found.group(1) if found else title_from(default_id))
    sections = _sections(TITLE.sub("", body, count=1))
    return compose(about.get("id") or default_id, title, about.get("url", ""), sections)


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


def _sections(body: str) -> Iterator[Section]:
    """What stands before the first `##` has no heading."""
    lead, *rest = HEADING.split(body)
    for heading, text in [("", lead), *zip(rest[::2], rest[1::2], strict=True)]:
        yield Section(heading, tuple(blocks(BOILERPLATE.sub("", text))))


def blocks(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        parts: list[str] = []
        for line in paragraph.splitlines():
            if LIST_ITEM.match(line) or not parts:
                parts.append(LIST_ITEM.sub("", line).strip())
            else:
                parts[-1] += " " + line.strip()
        yield from map(_plain, parts)


def _plain(markdown: str) -> str:
    text = LINK.sub(r"\1", IMAGE.sub("", SUBHEADING.sub("", markdown)))
    return " ".join(EMPHASIS.sub(r"\2", text).split())
