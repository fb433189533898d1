import gzip
import hashlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.retrieval.documents import PASSAGE_MAX_WORDS, SENTENCE_MAX_WORDS, Document, Skipped, sentences
from graph.retrieval.formats import READERS, read
from graph.retrieval.formats.markdown import parse
from graph.retrieval.ingest import STARTER

ARTICLE = """---
id: gout
title: Gout
summary: Pain in a joint.
see-also: [joint-pain]
---

Gout is a kind of arthritis. It hurts, e.g. at night.

## Symptoms

- Sudden **pain**
- A [red](https://example.org) `joint`, 2*2 of them

## When to seek care

Take no more than 1.5 g. See Dr. Smith soon.

This is general information, not a diagnosis or advice for your own case.
"""


def test_an_article_becomes_a_passage_for_each_section() -> None:
    document = parse(ARTICLE, "elsewhere")
    assert (document.document_id, document.title, document.url) == ("gout", "Gout", "")
    assert [(passage.heading, passage.sentences) for passage in document.passages] == [
        ("", ("Gout is a kind of arthritis.", "It hurts, e.g. at night.")),
        ("Symptoms", ("Sudden pain", "A red joint, 2*2 of them")),
        ("When to seek care", ("Take no more than 1.5 g.", "See Dr. Smith soon.")),
    ]


def one(file: Path, default_id: str = "a") -> Document:
    (document,) = read(file, default_id)
    assert isinstance(document, Document), document
    return document


def told(document: Document) -> list[tuple[str, str]]:
    return [(passage.heading, passage.text) for passage in document.passages]


def test_plain_text_takes_its_name_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sore-throat.txt"
    file.write_text("A sore throat mostly passes.")
    document = one(file, "notes/sore-throat")
    assert (document.document_id, document.title) == ("notes/sore-throat", "sore throat")


def test_a_markdown_title_is_the_title() -> None:
    document = parse("# About iron\n\nIron is a metal.\n", "iron")
    assert document.title == "About iron"
    assert document.passages[0].text == "Iron is a metal."


def test_a_long_section_is_cut_between_sentences_into_even_parts_that_overlap_by_one() -> None:
    said = [f"Sentence number {n} has exactly these eight words." for n in range(60)]
    document = parse("## Long\n\n" + " ".join(said), "long")
    first, *others = [passage.sentences for passage in document.passages]
    assert len(others) > 2
    assert [*first, *(sentence for sentences in others for sentence in sentences[1:])] == said
    for earlier, later in pairwise([first, *others]):
        assert earlier[-1] == later[0]
    lengths = [len(passage.text.split()) for passage in document.passages]
    assert max(lengths) <= PASSAGE_MAX_WORDS + 16
    assert max(lengths) - min(lengths) <= 24


def test_what_has_no_sentences_is_cut_all_the_same() -> None:
    document = parse("word " * 1000, "a")
    assert all(len(s.split()) <= SENTENCE_MAX_WORDS for passage in document.passages for s in passage.sentences)
    assert sum(len(passage.text.split()) for passage in document.passages) == 1000


PAGE = """<!doctype html><html><head><meta charset="latin-1"><title>Iron - Example</title>
<link rel="canonical" href="https://example.org/iron"><style>p {{ color: red }}</style></head>
<body><nav><ul><li>Menu</ul></nav><script>var p = "<p>no</p>";</script>
<h1>Iron <em>deficiency</em></h1><p>Iron &amp; blood.<p>A second paragraph{mark}
<h2>Signs</h2><ul><li>Pale <b>skin</b></li><li>Caf{e}</li></ul>
<table><tr><th>Age</th><th>mg</th></tr><tr><td>Adult</td><td>8</td></tr></table>
<form><button>Send</button></form><footer>Imprint</footer></body></html>"""


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_html_gives_its_headings_and_texts_and_no_menus(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(PAGE.format(mark=".", e="é").encode(encoding))
    document = one(file)
    assert (document.title, document.url) == ("Iron deficiency", "https://example.org/iron")
    assert told(document) == [
        ("", "Iron & blood. A second paragraph."),
        ("Signs", "Pale skin Café Age mg Adult 8"),
    ]


def pdf(*pages: str) -> bytes:
    """A PDF by hand: a text line a line, Helvetica."""
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        shown = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
        stream = f"BT /F1 12 Tf 14 TL 72 700 Td {shown} ET"
        kids.append(f"{len(bodies) + 1} 0 R")
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(bodies) + 2} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        bodies.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    bodies[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    made, places = "%PDF-1.4\n", []
    for number, body in enumerate(bodies, start=1):
        places.append(len(made))
        made += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    start = len(made)
    made += f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n{table}"
    return f"{made}trailer\n<< /Size {len(bodies) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()


def test_a_pdf_has_a_section_a_page(tmp_path: Path) -> None:
    file = tmp_path / "leaf-let.pdf"
    file.write_bytes(pdf("Iron tablets can make\nstools dark. Take them with wa-\nter.", "Keep out of reach."))
    document = one(file, "leaf-let")
    assert document.title == "leaf let"
    assert told(document) == [
        ("Page 1", "Iron tablets can make stools dark. Take them with water."),
        ("Page 2", "Keep out of reach."),
    ]


LINES = b"""{"id": "a", "title": "Iron", "heading": "Signs", "url": "u", "text": "Signs are: - Pale skin. - Fatigue."}

{"text": "Only text."}
{"id": "b"
{"id": "c", "text": 7}
["text"]
{"id": "d", "text": " "}
{"id": "e", "text": "The last."}"""


@pytest.mark.parametrize("packed", [False, True])
def test_of_json_lines_a_bad_one_is_named_and_the_rest_is_read(tmp_path: Path, packed: bool) -> None:
    file = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    file.write_bytes(gzip.compress(LINES) if packed else LINES)
    found = list(read(file, "x"))
    documents = [document for document in found if isinstance(document, Document)]
    assert [document.document_id for document in documents] == ["a", "x-3", "e"]
    assert (documents[0].title, documents[0].url) == ("Iron", "u")
    assert documents[0].passages[0] == ("Signs", ("Signs are:", "Pale skin.", "Fatigue."))
    skipped = [(Path(s.name).name.rpartition(":")[2], s.reason) for s in found if isinstance(s, Skipped)]
    assert [line for line, _ in skipped] == ["4", "5", "6", "7"]
    assert skipped[0][1].startswith("no JSON")
    assert [reason for _, reason in skipped[1:]] == ['no object with a "text"'] * 2 + ["no text in it"]


def test_a_line_of_any_length_costs_no_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.retrieval.formats.json_lines.LINE_MAX_BYTES", 100)
    file = tmp_path / "x.jsonl"
    file.write_text('{"id": "long", "text": "' + "x" * 1000 + '"}\n{"id": "short", "text": "Well."}\n')
    first, second = read(file, "x")
    assert first == (f"{file}:1", "longer than 100 bytes")
    assert isinstance(second, Document)


def test_a_gzip_file_that_breaks_off_keeps_what_was_read(tmp_path: Path) -> None:
    lines = "\n".join(f'{{"id": "{n}", "text": "{hashlib.sha256(str(n).encode()).hexdigest()}"}}' for n in range(9000))
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(gzip.compress(lines.encode())[:-2000])
    *documents, last = read(file, "x")
    assert len(documents) > 100
    assert "breaks off after line" in last.reason if isinstance(last, Skipped) else False


MEDQUAD = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="0000001" source="MPlus" url="https://example.org/a1c">
<Focus>A1C</Focus><FocusAnnotations><Category>Other</Category></FocusAnnotations>
<QAPairs><QAPair pid="1"><Question qid="0000001-1" qtype="information">What is A1C?</Question>
<Answer>A1C is a blood test.    Your result:       - Normal is below 5.7 percent    - Diabetes is above 6.5.</Answer>
</QAPair><QAPair pid="2"><Question qid="0000001-2" qtype="usage">Removed?</Question><Answer></Answer></QAPair></QAPairs>
</Document>"""


def test_medquad_has_a_section_a_question(tmp_path: Path) -> None:
    file = tmp_path / "0000001.xml"
    file.write_text(MEDQUAD)
    document = one(file)
    assert (document.document_id, document.title, document.url) == ("MPlus_0000001", "A1C", "https://example.org/a1c")
    assert [(passage.heading, passage.sentences) for passage in document.passages] == [
        (
            "What is A1C?",
            ("A1C is a blood test.", "Your result:", "Normal is below 5.7 percent", "Diabetes is above 6.5."),
        )
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"png", "only .htm, .html, .jsonl, "),
        ("a.md", b"\xff\xfe\x00bad", "no UTF-8 text"),
        ("a.html", b"<p>\xff\xfe", "no UTF-8 text"),
        ("a.html", b'<meta charset="klingon"><p>\xff', "no UTF-8 text"),
        ("a.html", b"<script>only()</script>", "no text in it"),
        ("a.md", b"", "no text in it"),
        ("a.md", b"---\ntitle: [\n---\nText.", "its front matter is no YAML"),
        ("a.md", b"---\n- a list\n---\nText.", "its front matter is no list of"),
        ("a.pdf", b"%PDF-1.4 broken", "no PDF that can be read"),
        ("a.pdf", pdf(" "), "scanned pages can't be read"),
        ("a.xml", b"<Document>", "no XML"),
        ("a.xml", b"<rss></rss>", "no MedQuAD document"),
        (
            "a.xml",
            MEDQUAD.replace("<Answer>A1C is", "<Nothing>").split("<QAPair ")[0].encode() + b"</QAPairs></Document>",
            "no text in it",
        ),
        ("a.jsonl.gz", b"no gzip", "no whole gzip file"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    (skipped,) = read(file, "a")
    assert isinstance(skipped, Skipped)
    assert skipped.name == str(file)
    assert reason in skipped.reason


@pytest.mark.parametrize("suffix", [suffix for suffix, (_, limit) in READERS.items() if limit is not None])
def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    with file.open("wb") as sparse:
        sparse.truncate(200_000_000)
    (skipped,) = read(file, "a")
    assert isinstance(skipped, Skipped)
    assert skipped.reason.startswith("larger than")


def test_a_missing_file_is_named_missing(tmp_path: Path) -> None:
    (skipped,) = read(tmp_path / "none.md", "none")
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "No such file or directory"


@given(st.text())
def test_no_text_is_lost_between_sentences(text: str) -> None:
    said = " ".join(sentences([text])).split()
    assert all(word in text.encode("utf-8", "replace").decode() for word in said)


def test_every_starter_article_can_be_read_and_quotes_no_boilerplate() -> None:
    files = sorted(STARTER.glob("*.md"))
    documents = [one(file, file.stem) for file in files]
    assert len(documents) >= 60
    assert [document.document_id for document in documents] == [file.stem for file in files]
    said = [sentence for document in documents for passage in document.passages for sentence in passage.sentences]
    assert not any("general information" in sentence for sentence in said)
