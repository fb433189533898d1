"""Makes an answer of sentences quoted from sources, each with its citation. Pure."""

import re
from typing import Any, NamedTuple

QUESTION = "question"
EVIDENCE = "evidence"  # both in a message's additional_kwargs; evidence as in State
MAX_SENTENCES = 5
MIN_SENTENCES = 3
KEEP_FROM_BEST = 0.88  # of the best sentence's score
KEEP_AT_LEAST = 0.75  # of it, to reach MIN_SENTENCES
REPEATED_OVERLAP = 0.6
SOURCE_WEIGHT = 0.5  # a sentence of a good source is worth more than one of a poor source
OTHER_DOCUMENT_FROM_BEST = 0.88  # of the best source's score: "not contagious" must not come from another illness
LEANS_BACK = re.compile(r"^(?:It|They|This|These|Those|That|He|She|Such)\b|\b(?:such|these|those) \w+")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")


class Sentence(NamedTuple):
    source: int
    order: int
    text: str
    score: float

    @property
    def words(self) -> frozenset[str]:
        return frozenset(re.findall(r"\w{4,}", self.text.lower()))


def quote(question: str, sources: list[dict[str, Any]], evidence: list[dict[str, Any]]) -> str:
    """Markdown: the best source first, each under its title. Without evidence, words are compared."""
    close = _close_sources(sources)
    said = [s for s in _said(question, sources, evidence) if s.source in close]
    weighed = [s._replace(score=s.score + SOURCE_WEIGHT * sources[s.source - 1]["score"]) for s in said]
    chosen = choose(weighed)
    parts = []
    for number in sorted({sentence.source for sentence in chosen}):
        own = sorted((s for s in chosen if s.source == number), key=lambda s: s.order)
        parts.append(f"**{sources[number - 1]['title']}**\n\n" + " ".join(f"{s.text} [{number}]" for s in own))
    return "\n\n".join(parts)


def _said(question: str, sources: list[dict[str, Any]], evidence: list[dict[str, Any]]) -> list[Sentence]:
    return [Sentence(**entry) for entry in evidence] or _by_words(question, sources)


def _close_sources(sources: list[dict[str, Any]]) -> set[int]:
    """The best source, its document's others, and those of other documents that are nearly as good."""
    documents = [source["id"].partition("#")[0] for source in sources]
    needed = OTHER_DOCUMENT_FROM_BEST * sources[0]["score"] if sources else 0
    numbered = enumerate(zip(sources, documents, strict=True), start=1)
    return {n for n, (source, document) in numbered if document == documents[0] or source["score"] >= needed}


def choose(said: list[Sentence]) -> list[Sentence]:
    """The best, best first; nothing that repeats another, and less rather than something beside the point."""
    chosen: list[Sentence] = []
    ranked = sorted(said, key=lambda s: (-s.score, s.source, s.order))
    for sentence in ranked[: 3 * MAX_SENTENCES]:
        needed = KEEP_AT_LEAST if len(chosen) < MIN_SENTENCES else KEEP_FROM_BEST
        good = sentence.score >= needed * ranked[0].score
        if good and not any(_repeats(sentence, other) for other in chosen):
            chosen.append(sentence)
    chosen = chosen[:MAX_SENTENCES]
    places = {(sentence.source, sentence.order) for sentence in chosen}
    return [s for s in chosen if (s.source, s.order - 1) in places or not LEANS_BACK.search(s.text)] or chosen


def _repeats(sentence: Sentence, other: Sentence) -> bool:
    shared = sentence.words & other.words
    return len(shared) >= REPEATED_OVERLAP * max(1, min(len(sentence.words), len(other.words)))


def _by_words(question: str, sources: list[dict[str, Any]]) -> list[Sentence]:
    asked = frozenset(re.findall(r"\w{4,}", question.lower()))
    return [
        sentence._replace(score=len(asked & sentence.words) / max(1, len(asked)))
        for number, source in enumerate(sources, start=1)
        for order, text in enumerate(SENTENCE.split(source["text"]))
        for sentence in [Sentence(number, order, text, 0)]
    ]
