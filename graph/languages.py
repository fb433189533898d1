"""In which language a message is, as far as plain code can tell, and what is said to one that is not in English. The
words are in `languages.yaml`."""

import re
import unicodedata
from functools import cache
from typing import Any, NamedTuple

from graph.phrases import TYPOGRAPHY
from graph.red_flags import INTERNATIONAL, emergency_number, loaded

UNREAD = "unread"  # in another script than Latin
WORD = re.compile(r"[^\W\d_]+")
LETTERS = ("Lu", "Ll", "Lt", "Lo")
NEEDED = 3  # a telling word counts 2, one that fits 1
ALL_FITTING = 4  # so many tell it too
SHORTEST_ALONE = 4


class _Language(NamedTuple):
    name: str
    telling: frozenset[str]
    beside: frozenset[str]


def language(text: str) -> str | None:
    """Of `languages.yaml`, or `UNREAD`. None: English, or too little to tell."""
    plain = unicodedata.normalize("NFKC", text)
    if _in_another_script(plain):
        return UNREAD
    said = set(WORD.findall(_without_accents(plain)))
    counted = {one.name: 2 * len(said & one.telling) + len(said & one.beside) for one in _languages()}
    best = max(_languages(), key=lambda one: counted[one.name])
    telling = said & best.telling
    if said & _english() and len(telling) < 2:
        return None
    if said == telling and any(len(word) >= SHORTEST_ALONE for word in said):
        return best.name
    needed = max(NEEDED, 2 * len(said & _english()) + 1)
    tells = bool(telling) or counted[best.name] >= ALL_FITTING
    return best.name if tells and counted[best.name] >= needed else None


def only_english(spoken: str, region: str) -> str:
    """For a message in a language that `language` has found: in that language where there is a text, and in English."""
    texts = _data()["only_english"]
    own = _data()["languages"].get(spoken, {})
    said = str(texts["unread" if spoken == UNREAD else "english"]).format(number=emergency_number(region))
    if "only_english" not in own:
        return said
    number = own["number"] if region == INTERNATIONAL else emergency_number(region)
    return f"{own['only_english'].format(number=number)}\n\n{said}"


def _in_another_script(plain: str) -> bool:
    """Most of its letters, and not only one: a Greek letter is a unit or a kind of virus."""
    letters = [letter for letter in plain if unicodedata.category(letter) in LETTERS]
    others = sum(not (one.isascii() or unicodedata.name(one, "").startswith("LATIN")) for one in letters)
    return others > 1 and 2 * others > len(letters)


def _without_accents(plain: str) -> str:
    marked = unicodedata.normalize("NFKD", plain.lower().translate(TYPOGRAPHY))
    return "".join(letter for letter in marked if not unicodedata.combining(letter))


@cache
def _languages() -> tuple[_Language, ...]:
    listed = _data()["languages"].items()
    return tuple(_Language(name, frozenset(own["telling"]), frozenset(own["beside"])) for name, own in listed)


@cache
def _english() -> frozenset[str]:
    return frozenset(_data()["english"])


@cache
def _data() -> dict[str, Any]:
    return loaded("languages.yaml")
