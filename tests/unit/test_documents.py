from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.retrieval.documents import PASSAGE_MAX_WORDS, UnreadableFile, parse, read, sentences
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


def test_plain_text_takes_its_name_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sore-throat.txt"
    file.write_text("A sore throat mostly passes.")
    document = read(file, "notes/sore-throat")
    assert (document.document_id, document.title) == ("notes/sore-throat", "sore throat")


def test_a_markdown_title_is_the_title() -> None:
    document = parse("# About iron\n\nIron is a metal.\n", "iron")
    assert document.title == "About iron"
    assert document.passages[0].text == "Iron is a metal."


def test_a_long_section_is_cut_between_sentences_into_even_parts() -> None:
    said = [f"Sentence number {n} has exactly these eight words." for n in range(60)]
    document = parse("## Long\n\n" + " ".join(said), "long")
    lengths = [len(passage.text.split()) for passage in document.passages]
    assert [sentence for passage in document.passages for sentence in passage.sentences] == said
    assert max(lengths) <= PASSAGE_MAX_WORDS + 8
    assert max(lengths) - min(lengths) <= 16


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdf", b"%PDF", "only .markdown, .md, .txt can be read"),
        ("a.md", b"\xff\xfe\x00bad", "no UTF-8 text"),
        ("a.md", b"", "no text in it"),
        ("a.md", b"---\ntitle: [\n---\nText.", "its front matter is no YAML"),
        ("a.md", b"---\n- a list\n---\nText.", "its front matter is no list of"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UnreadableFile, match=reason):
        read(file, "a")


def test_a_missing_file_is_named_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="No such file"):
        read(tmp_path / "none.md", "none")


@given(st.text(alphabet=st.characters(exclude_characters="*_`#![")))
def test_no_text_is_lost_between_sentences(text: str) -> None:
    words = " ".join(sentences(text)).split()
    assert all(word in text for word in words)


def test_every_starter_article_can_be_read_and_quotes_no_boilerplate() -> None:
    documents = [read(file, file.stem) for file in sorted(STARTER.glob("*.md"))]
    assert len(documents) >= 60
    assert all(
        document.document_id == file.stem
        for document, file in zip(documents, sorted(STARTER.glob("*.md")), strict=True)
    )
    said = [sentence for document in documents for passage in document.passages for sentence in passage.sentences]
    assert not any("general information" in sentence for sentence in said)
