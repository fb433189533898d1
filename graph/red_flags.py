"""Finds red flags in a message: by rules alone, without model or network. The rules are in `red_flags.yaml`, signs in
other languages in `red_flags_abroad.yaml`."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from graph.phrases import Found, Phrases, Span, Spelling, words
from graph.scopes import ScopeRules, Scopes

INTERNATIONAL = "international"
REMEMBERED_MESSAGES = 32
TOGETHER_WORDS = 14  # within which the parts of a sign stand
PART, EITHER = " + ", " | "  # "@chest + @pain | @pressure": each part somewhere, in any order


class Flag(NamedTuple):
    """`now`: it is about a person and happening; else the message only asks about the subject."""

    category: str
    now: bool


class _Category(NamedTuple):
    """Signs as lists of their parts, each the number of a set of phrases."""

    name: str
    now: list[list[int]]
    asked: list[list[int]]
    person: list[list[int]]
    topic: list[list[int]]
    maybe: list[list[int]]
    exceptions: int
    lasting: bool


class _Rules(NamedTuple):
    spelling: Spelling
    phrases: Phrases
    scopes: ScopeRules
    categories: list[_Category]
    signs: int
    answers: dict[str, int]


class _Read(NamedTuple):
    """A message as the rules see it: where every set of phrases stands, and how far its negations and tenses reach."""

    found: Found
    scopes: Scopes


def find_flag(message: str) -> Flag | None:
    """The first category that is an alarm; else the first that is only a topic."""
    rules = _rules()
    read = _read(message)
    if read is None:
        return None
    for category in rules.categories:
        if _alarms(category, read):
            return Flag(category.name, True)
    for heard in (_is_topic, _may_be):
        for category in rules.categories:
            if heard(category, read):
                return Flag(category.name, False)
    return None


def tells_of_a_sign(message: str) -> bool:
    """Whether somebody says that something in the body is wrong: worth a second look where a model can take it."""
    read = _read(message)
    return read is not None and bool(read.scopes.people) and _rules().signs in read.found


def hear(message: str, answer: str) -> set[int]:
    """At which of its words the message says this, one of the `answers` among the rules."""
    rules = _rules()
    read = _read(message)
    return {span.start for span in read.found[rules.answers[answer]]} if read is not None else set()


@lru_cache(REMEMBERED_MESSAGES)
def _read(message: str) -> _Read | None:
    """Remembers the last ones: the gate, what follows on an alarm and the supervisor all ask about one message."""
    rules = _rules()
    said = words(message, rules.spelling)
    if not said:
        return None
    found = rules.phrases.find([word.text for word in said])
    return _Read(found, rules.scopes.read(said, found))


def _alarms(category: _Category, read: _Read) -> bool:
    scopes = read.scopes
    over = scopes.long_past if category.lasting else scopes.past

    def happening(span: Span) -> bool:
        return scopes.clause[span.start] not in over and scopes.clause[span.start] not in scopes.general

    def pressing(span: Span) -> bool:
        return happening(span) and (bool(scopes.people) or scopes.clause[span.start] in scopes.urgent)

    def anyhow(span: Span) -> bool:
        return scopes.clause[span.start] not in over

    tiers = ((category.now, happening), (category.person, pressing), (category.asked, anyhow))
    return any(_together(parts, category, read, accepts) for signs, accepts in tiers for parts in _said(signs, read))


def _is_topic(category: _Category, read: _Read) -> bool:
    signs = (category.now, category.person, category.topic)
    return any(_together(parts, category, read, lambda span: True) for listed in signs for parts in _said(listed, read))


def _may_be(category: _Category, read: _Read) -> bool:
    """One strong word alone of somebody: not enough for an alarm, too much for silence."""
    scopes = read.scopes
    if not scopes.people:
        return False
    quiet = scopes.past | scopes.general | scopes.mild
    return any(
        _together(parts, category, read, lambda span: scopes.clause[span.start] not in quiet)
        for parts in _said(category.maybe, read)
    )


def _said(signs: list[list[int]], read: _Read) -> Iterator[list[int]]:
    """Those of which each part stands somewhere: a few of hundreds."""
    return filter(read.found.numbers.issuperset, signs)


def _together(parts: list[int], category: _Category, read: _Read, accepts: Any) -> bool:
    """Whether each part stands there not taken back, not of an exception, and near the others."""
    places: list[list[Span]] = []
    exceptions = read.found[category.exceptions]
    for part in parts:
        heard = [
            span
            for span in read.found[part]
            if span in read.scopes.people
            or (not read.scopes.negated[span.start] and accepts(span) and not _cut(span, exceptions))
        ]
        if not heard:
            return False
        places.append(heard)
    if len(places) == 1:
        return True
    places.sort(key=len)
    return any(all(_near(span, others) for others in places[1:]) for span in places[0])


def _near(span: Span, others: list[Span]) -> bool:
    low = bisect_left(others, Span(span.start - TOGETHER_WORDS, 0))
    for other in others[low:]:
        if other.start > span.end + TOGETHER_WORDS:
            return False
        if other.start >= span.end or other.end <= span.start:
            return True
    return False


def _cut(span: Span, exceptions: list[Span]) -> bool:
    return any(one.start < span.end and span.start < one.end for one in exceptions)


def categories() -> tuple[str, ...]:
    return tuple(_data()["categories"])


def regions() -> tuple[str, ...]:
    return tuple(_data()["regions"])


def emergency_text(category: str, region: str) -> str:
    """With the region's numbers: of the emergency service, a poison centre and a crisis line."""
    text = _data()["texts"][category]
    return str(text).format(**_data()["regions"][region]).strip()


def topic_line(category: str, region: str) -> str:
    key = "topic_line_self_harm" if category == "self_harm" else "topic_line"
    return str(_data()[key]).format(**_data()["regions"][region])


def crisis_line(region: str) -> str:
    """One sentence for whoever is in distress and in no danger that was seen."""
    return str(_data()["crisis_line"]).format(**_data()["regions"][region])


def crisis_reminder(region: str) -> str:
    """The same in few words, for whoever has read it before."""
    return str(_data()["crisis_reminder"]).format(**_data()["regions"][region])


def emergency_number(region: str) -> str:
    return str(_data()["regions"][region]["number"])


@cache
def _data() -> dict[str, Any]:
    return {**loaded("red_flag_texts.yaml"), **loaded("red_flags.yaml")}


def loaded(name: str) -> dict[str, Any]:
    """All values are text: "no" is a word. Every process reads this at its start, so with the quick parser."""
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    loaded: dict[str, Any] = yaml.load(files(__package__).joinpath(name).read_text("utf-8"), loader)
    return loaded


@cache
def _rules() -> _Rules:
    data, abroad = _data(), loaded("red_flags_abroad.yaml")
    phrases = Phrases({**data["concepts"], **abroad["concepts"]})
    scopes = {name: [*listed, *abroad["scopes"].get(name, [])] for name, listed in data["scopes"].items()}
    listed = [
        _category(name, entry, abroad["categories"].get(name, []), phrases)
        for name, entry in data["categories"].items()
    ]
    return _Rules(
        Spelling(data["spellings"], data["key_words"], data["real_words"]),
        phrases,
        ScopeRules(scopes, phrases),
        listed,
        phrases.add(data["signs"]),
        {name: phrases.add(heard) for name, heard in data["answers"].items()},
    )


def _category(name: str, entry: dict[str, Any], abroad: list[str], phrases: Phrases) -> _Category:
    def parts(signs: Iterable[str]) -> list[list[int]]:
        return [[phrases.add(part.split(EITHER)) for part in sign.split(PART)] for sign in signs]

    return _Category(
        name,
        now=parts([*entry["now"], *abroad]),
        asked=parts(entry.get("asked", [])),
        person=parts(entry.get("person", [])),
        topic=parts(entry.get("topic", [])),
        maybe=parts(entry.get("maybe", [])),
        exceptions=phrases.add(entry.get("except", [])),
        lasting="lasting" in entry,
    )
