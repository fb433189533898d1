"""Finds red flags in a message: by rules alone, without model or network. The rules are in `red_flags.yaml`."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

INTERNATIONAL = "international"
CONFIRMED = "self_harm_confirmed"  # not a category of its own: what follows on self_harm
OPENING_CHARACTERS = 60  # by which a text is known again, whatever the region
# A comma ends a clause only where a new subject follows: "no fever, chest pain or cough" takes all three back.
CLAUSE_ENDS = re.compile(
    r"[.!?;:\n]+|,? but |, and |, (?=(?:i|i'm|i've|my|he|he's|she|she's|they|we|our|the|it|it's|what|how|should|can|"
    r"is|are|do|please|help|her|his|this|there)\b)"
)
TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "–": "-", "—": "-"})


class Flag(NamedTuple):
    """`now`: it is about a person and happening; else the message only asks about the subject."""

    category: str
    now: bool


class _Category(NamedTuple):
    name: str
    always: re.Pattern[str]
    person: re.Pattern[str]
    topic: re.Pattern[str]
    exceptions: re.Pattern[str]
    taken_back: re.Pattern[str] | None


class _Rules(NamedTuple):
    spellings: list[tuple[re.Pattern[str], str]]
    categories: list[_Category]
    negated: re.Pattern[str]
    past: re.Pattern[str]
    general: re.Pattern[str]
    person: re.Pattern[str]
    now: re.Pattern[str]
    somebody: re.Pattern[str]


def find_flag(message: str) -> Flag | None:
    """The first category that is an alarm; else the first that is only a topic."""
    rules = _rules()
    text = _normal(message, rules)
    topic: Flag | None = None
    for category in rules.categories:
        heard = category.exceptions.sub(" ", text)
        if _alarms(heard, category, rules):
            return Flag(category.name, True)
        mentioned = (category.always, category.person, category.topic)
        if topic is None and any(_stands(heard, pattern, category, rules) for pattern in mentioned):
            topic = Flag(category.name, False)
    return topic


def categories() -> tuple[str, ...]:
    return tuple(_data()["categories"])


def regions() -> tuple[str, ...]:
    return tuple(_data()["regions"])


def emergency_text(category: str, region: str) -> str:
    """With the region's numbers: of the emergency service, a poison centre and a crisis line."""
    text = _data()["confirmed"] if category == CONFIRMED else _data()["categories"][category]["text"]
    return str(text).format(**_data()["regions"][region]).strip()


def topic_line(category: str, region: str) -> str:
    key = "topic_line_self_harm" if category == "self_harm" else "topic_line"
    return str(_data()[key]).format(**_data()["regions"][region])


def emergency_number(region: str) -> str:
    return str(_data()["regions"][region]["number"])


def confirms_self_harm(question: str, answer: str) -> bool:
    """Whether `answer` says yes to the text that asks about it: "yes", "I am", "I have a plan"."""
    texts = (emergency_text(category, INTERNATIONAL) for category in ("self_harm", CONFIRMED))
    asked = question.startswith(tuple(text[:OPENING_CHARACTERS] for text in texts))
    return asked and _words(_data()["confirms"]).match(_normal(answer, _rules()).strip()) is not None


def _alarms(text: str, category: _Category, rules: _Rules) -> bool:
    someone = rules.person.search(text) is not None
    for clause in _clauses(text):
        if rules.past.search(clause) or (_general(clause, rules) and not _urgent(clause, rules)):
            continue
        if _stands(clause, category.always, category, rules):
            return True
        if (someone or rules.now.search(clause)) and _stands(clause, category.person, category, rules):
            return True
    return False


def _general(clause: str, rules: _Rules) -> bool:
    return rules.general.search(clause) is not None


def _urgent(clause: str, rules: _Rules) -> bool:
    """ "What should I do if my son swallowed a battery" is no general question, nor is one of a person and of now."""
    now = rules.now.search(clause) is not None and rules.person.search(clause) is not None
    return now or rules.somebody.search(clause) is not None


def _stands(clause: str, pattern: re.Pattern[str], category: _Category, rules: _Rules) -> bool:
    """Whether the pattern is there at least once and not taken back by what stands before it."""
    if category.taken_back is not None:
        clause = category.taken_back.sub(" ", clause)
        return pattern.search(clause) is not None
    return any(not rules.negated.search(clause[: match.start()]) for match in pattern.finditer(clause))


def _clauses(text: str) -> list[str]:
    """Whole sentences too, since one sign may be spread over two clauses."""
    sentences = re.split(r"[.!?\n]+", text)
    return [part for part in dict.fromkeys([*sentences, *CLAUSE_ENDS.split(text)]) if part.strip()]


def _normal(message: str, rules: _Rules) -> str:
    """One space between words, however they were parted, but for an empty line, which ends a sentence."""
    paragraphs = re.split(r"\n\s*\n", message.lower().translate(TYPOGRAPHY))
    text = "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for pattern, spelling in rules.spellings:
        text = pattern.sub(spelling, text)
    return text


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("red_flags.yaml").read_text())
    return loaded


@cache
def _rules() -> _Rules:
    data = _data()
    return _Rules(
        [(_words([written]), meant) for written, meant in data["spellings"].items()],
        [_category(name, entry) for name, entry in data["categories"].items()],
        re.compile(rf"\b(?:{'|'.join(data['negations'])})(?:\W+\w+){{0,{data['negation_reach']}}}\W*$"),
        _words(data["past"]),
        _words(data["general"]),
        _words(data["person"]),
        _words(data["now"]),
        _words(data["somebody"]),
    )


def _category(name: str, entry: dict[str, Any]) -> _Category:
    taken_back = entry.get("negated_only_by")
    return _Category(
        name,
        always=_words(entry["always"]),
        person=_words(entry.get("person", [])),
        topic=_words(entry.get("topic", [])),
        exceptions=_words(entry.get("except", [])),
        taken_back=_words(taken_back) if taken_back else None,
    )


def _words(alternatives: Iterable[str]) -> re.Pattern[str]:
    """Whole words only; of no alternatives: nothing matches."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(alternatives) or '(?!)'})(?!\w)")
