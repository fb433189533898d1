"""MedQuAD's XML: a document with a focus and questions, each with its answer, which becomes a section under it."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from graph.retrieval.documents import Document, Section, UnreadableFile, compose, paragraphs

FLAT_PARAGRAPH = re.compile(r"\s{3,}(?:- )?")


def read(path: Path, default_id: str) -> Iterator[Document]:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # also of an encoding that nobody knows
        raise UnreadableFile(f"no XML: {error}") from error
    if root.tag != "Document" or root.find("QAPairs") is None:
        raise UnreadableFile("no MedQuAD document: it has no <QAPairs> in a <Document>")
    known = "_".join(part for part in (root.get("source"), root.get("id")) if part)
    title = (root.findtext("Focus") or "").strip() or known or default_id
    yield compose(known or default_id, title, root.get("url", ""), map(_section, root.iter("QAPair")))


def _section(pair: ElementTree.Element) -> Section:
    answer = FLAT_PARAGRAPH.sub("\n\n", pair.findtext("Answer") or "")
    return Section((pair.findtext("Question") or "").strip(), paragraphs(answer))
