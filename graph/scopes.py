"""How far "not", "ago" and "what is" reach: each takes back the signs of its own clause, not of the message."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from graph.phrases import Found, Phrases, Span, Word

NEGATION_REACH = 6  # words
LIST_WORDS = 12  # of "no fever, chest pain or cough", up to the "or"
POSSESSION_REACH = 3  # words from "my" to what is mine


class Scopes(NamedTuple):
    """Of each word its clause, and whether it is taken back; the clauses that speak of this and that.

    `people`: the words that name somebody.
    """

    clause: list[int]
    negated: list[bool]
    past: set[int]
    long_past: set[int]
    general: set[int]
    present: set[int]
    urgent: set[int]
    mild: set[int]
    people: set[Span]


class ScopeRules:
    def __init__(self, data: Mapping[str, Sequence[str]], phrases: Phrases) -> None:
        self._sets = {name: phrases.add(listed) for name, listed in data.items()}

    def read(self, message: list[Word], found: Found) -> Scopes:
        at = {name: found[number] for name, number in self._sets.items()}
        starts = {name: {span.start for span in spans} for name, spans in at.items()}
        clause = _clauses(message, starts)
        present = {clause[span.start] for span in at["present"]}
        past = {clause[span.start] for span in at["past"]} - present
        long_past = {clause[span.start] for span in at["long_past"]} - present
        return Scopes(
            clause,
            _negated(message, clause, starts),
            past | long_past,
            long_past,
            _general(message, clause, at, starts),
            present,
            {clause[span.start] for span in at["urgent"]} | present,
            {clause[span.start] for span in at["mild"]},
            set(at["person"]),
        )


Starts = Mapping[str, set[int]]


def _clauses(message: list[Word], starts: Starts) -> list[int]:
    """A mark ends one, and so does "but", and "and" before a new subject or a verb of the present."""
    numbers: list[int] = []
    number = 0
    for at, word in enumerate(message):
        joins = at in starts["joins"] and (at + 1 in starts["subjects"] or at + 1 in starts["present_verbs"])
        if at and (word.after or at in starts["but"] or joins):
            number += 1
        numbers.append(number)
    return numbers


def _negated(message: list[Word], clause: list[int], starts: Starts) -> list[bool]:
    negated = [False] * len(message)
    for at in sorted(starts["negations"] - starts["negates_nothing"]):
        for reached in range(at + 1, _negation_end(message, clause, at, starts)):
            negated[reached] = True
    return negated


def _negation_end(message: list[Word], clause: list[int], at: int, starts: Starts) -> int:
    """It ends with its clause, at "and" after a verb, and at a new subject, but for "I don't think that he …"."""
    listing = at in starts["listing"]
    thinks = at + 1 in starts["thinking"]
    if listing and (last := _list_end(message, at, starts)):
        return last
    end = at + 1
    while end < len(message) and end <= at + NEGATION_REACH and clause[end] == clause[at]:
        if end in starts["subjects"] and end > at + 1 and not thinks:
            break
        if end in starts["joins"] and not listing and message[end].text == "and":
            break
        end += 1
    return end


def _list_end(message: list[Word], at: int, starts: Starts) -> int:
    """Of "no fever, chest pain or cough" the end of the last item; 0 when it is no such list."""
    for end in range(at + 1, min(at + LIST_WORDS, len(message))):
        if message[end].after == "." or end in starts["subjects"] or end in starts["but"]:
            return 0
        if message[end].text in ("or", "nor"):
            return min(end + 3, len(message))
    return 0


def _general(message: list[Word], clause: list[int], at: Mapping[str, list[Span]], starts: Starts) -> set[int]:
    """The clauses that ask in general, and what they go on with; but not what is of somebody or of this moment."""
    asked = {clause[span.start] for span in at["general"]}
    if not asked:
        return asked
    framed = _framed(sorted([*at["frames"], *at["suppositions"]]), starts)
    personal = {clause[n] for n in starts["subject_people"] - framed}
    for n in starts["possessives"] - framed:
        if any(near in starts["ones_own"] for near in range(n + 1, n + 1 + POSSESSION_REACH)):
            personal.add(clause[n])
    personal |= {clause[n] for n in starts["oneself"]}
    sentence_ends = {clause[n] for n, word in enumerate(message) if word.after == "."}
    general: set[int] = set()
    for number in range(clause[-1] + 1):
        follows = number - 1 in general and number not in sentence_ends
        if number not in personal and (number in asked or follows):
            general.add(number)
    return general - {clause[span.start] for span in at["this_moment"]}


def _framed(frames: list[Span], starts: Starts) -> set[int]:
    """The words of "what should I" and the like, whose "I" is nobody in need; of "what do I do I choke" the first."""
    framed: set[int] = set()
    for span in frames:
        if not framed.intersection(range(span.start, span.end)) and span.start - 1 not in starts["subject_people"]:
            framed.update(range(span.start, span.end))
    return framed
