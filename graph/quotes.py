"""Makes an answer of sentences quoted from sources, each with its citation. Pure."""

import re
from typing import Any, NamedTuple

QUESTION = "question"
EVIDENCE = "evidence"  # as in State
FOLLOW_UP = "follow_up"  # what a question adds to the one before it, "and for children?"; "" when it stands alone
SAID = "said"  # the earlier answers; all these in a message's additional_kwargs
MAX_SENTENCES = 5
MIN_SENTENCES = 3
KEEP_FROM_BEST = 0.88  # of the best sentence's score
KEEP_AT_LEAST = 0.75  # of it, to reach MIN_SENTENCES
REPEATED_OVERLAP = 0.6
SOURCE_WEIGHT = 0.5  # a sentence of a good source is worth more than one of a poor source
OTHER_DOCUMENT_FROM_BEST = 0.88  # of the best source's score: "not contagious" must not come from another illness
LEANS_BACK = re.compile(r"^(?:It|They|This|These|Those|That|He|She|Such)\b|\b(?:such|these|those) \w+")
NOTHING_MORE = (
    "The articles here say nothing about that, beyond what stands above. A doctor or a pharmacist can tell more."
)
# Whom a question can be about, in all the words for them: an answer about others is none.
KIN = (
    frozenset(
        {"children", "child", "kids", "kid", "babies", "baby", "infants", "infant", "toddler", "teenagers", "teenager"}
    ),
    frozenset({"pregnant", "pregnancy", "breastfeeding", "expecting"}),
    frozenset({"elderly", "older", "seniors", "senior"}),
    frozenset({"women", "woman", "female", "females"}),
    frozenset({"men", "man", "male", "males"}),
)
SAID_BEFORE = 0.04  # what a sentence loses that was quoted in an earlier answer
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")


class Sentence(NamedTuple):
    source: int
    order: int
    text: str
    score: float

    @property
    def words(self) -> frozenset[str]:
        return frozenset(re.findall(r"\w{4,}", self.text.lower()))


def quote(
    question: str,
    sources: list[dict[str, Any]],
    evidence: list[dict[str, Any]],
    follow_up: str = "",
    said_before: str = "",
) -> str:
    """Markdown: the best source first, each under its title. Without evidence, words are compared.

    A follow-up is answered with what its own words are about, and never with what was quoted before.
    """
    close = _close_sources(sources)
    said = [s for s in _said(question, sources, evidence) if s.source in close]
    if follow_up:
        said = _new(_said(question, sources, evidence), sources, follow_up, said_before)
        if not said:
            return NOTHING_MORE
    weighed = [s._replace(score=s.score + SOURCE_WEIGHT * sources[s.source - 1]["score"]) for s in said]
    chosen = choose(weighed)
    parts = []
    for number in sorted({sentence.source for sentence in chosen}):
        own = sorted((s for s in chosen if s.source == number), key=lambda s: s.order)
        parts.append(f"**{sources[number - 1]['title']}**\n\n" + " ".join(f"{s.text} [{number}]" for s in own))
    return "\n\n".join(parts)


def _new(said: list[Sentence], sources: list[dict[str, Any]], follow_up: str, said_before: str) -> list[Sentence]:
    """Of whom the follow-up names ("children"), in the articles that were quoted before: what others say of children is
    about something else. When it names nobody, what was not yet said comes first, and only of the nearest article when
    that was quoted before: that another illness is not contagious is no answer."""
    named = set(re.findall(r"[a-z]+", follow_up.lower()))
    kin = frozenset().union(*(group for group in KIN if group & named))
    quoted = {n for n, source in enumerate(sources, start=1) if f"**{_article(source)}" in said_before}
    if not kin:
        only = {n for n in quoted if 1 in quoted and _article(sources[n - 1]) == _article(sources[0])}
        own = [s for s in said if not only or s.source in only]
        return [s._replace(score=s.score - SAID_BEFORE * (s.text in said_before)) for s in own]
    whom = re.compile(rf"\b(?:{'|'.join(sorted(kin))})\b")
    about = [s for s in said if whom.search(s.text.lower()) and s.text not in said_before]
    return [s for s in about if s.source in quoted] if quoted else about


def _article(source: dict[str, Any]) -> str:
    return str(source["title"]).split(": ")[0]


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
