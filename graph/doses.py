"""A sentence names a dose only when one sentence of a passage that it cites has all its numbers, each of the same unit.

Whatever is not understood is compared as it is written: so a quotation always stands, and in doubt the dose goes. Pure.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NOT_SAID = "an amount that a pharmacist or the package leaflet can tell you"
HOLD_MAX_CHARACTERS = 1000
WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
WORDS |= {"eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17}
WORDS |= {"eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
WORDS |= {"seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000}
VAGUE = ("half", "quarter", "dozen", "couple", "few", "several", "handful", "double", "triple")
_FORMS = r"creams?|gels?|ointments?|lotions?|solutions?|shampoos?|foams?|mouthwash(?:es)?"
_PIECES = r"tablet\w*|tabs?|pills?|capsules?|caps|caplets?|lozenges?|sachets?|patch(?:es)?|suppositor\w+"
# What a dose is given in: a pattern, the unit that all of its kind are compared in, and how many of that it is.
DOSED: tuple[tuple[str, str, float], ...] = (
    (r"mg|mil+igram+\w*", "mg", 1),
    (r"mcg|[µμ]g|mi[ck]rogram+\w*", "mg", 0.001),
    (r"g|gram+\w*", "mg", 1000),
    (r"kg|kilo(?:gram+\w*)?s?", "mg", 1_000_000),
    (r"ml|mil+ilit(?:re|er)\w*|cc", "ml", 1),
    (r"l|lit(?:re|er)s?", "ml", 1000),
    (r"(?:international )?units?|iu", "unit", 1),
    (r"mmol|millimoles?", "mmol", 1),
    (r"meq|milliequivalents?", "meq", 1),
    (rf"% (?:\w+ )?(?:{_FORMS})", "strength", 1),
    (_PIECES, "piece", 1),
    (r"drops?", "drop", 1),
    (r"puffs?|sprays?|inhalations?", "puff", 1),
    (r"teaspoon(?:ful)?s?|tsp", "teaspoon", 1),
    (r"tablespoon(?:ful)?s?|tbsp", "tablespoon", 1),
    (r"doses?", "dose", 1),
)
OTHER = (
    (r"sec(?:ond)?s?", "second"),
    (r"min(?:ute)?s?", "minute"),
    (r"h|hrs?|hours?", "hour"),
    (r"days?", "day"),
    (r"weeks?", "week"),
    (r"months?", "month"),
    (r"years?", "year"),
    (r"%|percent|per cent", "%"),
)
PER = (
    (r"kg|kilo(?:gram+\w*)?s?", "kg"),
    (r"lb|pounds?", "lb"),
    (r"m2|m²|square met(?:re|er)s?", "m2"),
    (r"min(?:ute)?", "minute"),
    (r"h|hr|hour", "hour"),
    (r"24[\s-]*h(?:ours?|rs?)?|day|night|morning|evening|d", "day"),
    (r"week|wk", "week"),
    (r"month", "month"),
    (r"dose", "dose"),
)


def _either(known: Sequence[tuple[object, ...]]) -> str:
    return "|".join(str(one[0]) for one in known)


_WORD = rf"(?:{'|'.join(sorted(WORDS, key=len, reverse=True))})\b"
_WORDS = rf"{_WORD}(?:[\s-]+{_WORD}|(?<=hundred)\s+and\s+{_WORD}|(?<=thousand)\s+and\s+{_WORD})*"
_DIGITS = r"(?:(?:\d+\s+)?\d/\d(?![\d/])|\d+(?:[.,/]\d+)*(?:\s?[¼½¾])?|\.\d+|[¼½¾])"
_NUMBER = rf"(?:{_DIGITS}|{_WORDS}(?:\s+and\s+a\s+(?:half|quarter)\b)?|(?:{'|'.join(VAGUE)})\b)"
_RANGE = rf"{_NUMBER}(?:\s*(?:-|–|—|to|or|and)\s*{_NUMBER})*"
_LINK = r"(?:\s+of)?(?:\s+(?:an?|the))?[\s-]*"
_PER = (
    r"(?:\s*(?:/|\b(?:per|in|within|over|an?|every|each|for (?:each|every))\b(?:\s+(?:an?|any|every|each|one|1))?)\s*"
    rf"(?:{_either(PER)})\b"
    r"|\s+(?:daily|hourly|weekly|monthly|nightly)\b)"
)
TOKEN = re.compile(
    rf"(?:(?P<daily>daily)\b(?:\s+[a-z]+){{0,4}}?\s+)?(?<![\w\[.])(?P<numbers>{_RANGE})"
    rf"(?:(?P<again>\s*(?:x|×|times)?\s*)(?=(?:{_NUMBER}){_LINK}(?:{_either(DOSED)})(?!\w))"
    rf"|{_LINK}(?:(?P<hourly>hourly)\b|(?P<unit>{_either(DOSED)}|{_either(OTHER)}|times?|x)(?!\w)(?!/\w*l\b)"
    rf"(?:\s+(?:{_PIECES})\b)?)"
    rf"|\s+[a-z]+\s+(?P<pieces>{_PIECES})\b)?(?P<per>{_PER}*)"
    rf"|\bevery\s+(?:(?P<every>{_RANGE})\s*)?(?P<period>{_either(OTHER)})\b|\b(?P<hour>hourly)\b"
    rf"|\b(?P<often>once|twice)(?P<per_often>{_PER}+)",
    re.IGNORECASE,
)
BEGINNINGS = (*WORDS, *VAGUE, "every", "once", "twice", "hourly", "daily")
MAY_BEGIN = re.compile(
    rf"[*_~`\\(]*(?<![^\W_]|\[)(?:\.?\d|[¼½¾]|(?:{'|'.join(BEGINNINGS)})(?![^\W_]))",
    re.IGNORECASE,
)
SENTENCE_ENDS = re.compile(r"(?:[.!?](?=\s)|\n)(?:\s*\[\d+\])*(?=\s*[^\s\[a-z])")
LAST_WORD = re.compile(r"(?:[*_~`\\(]+|(?<![^\W_]))([a-zA-Z]*)$")
CITED = re.compile(r"\[(\d+)\]")
MARKS = "*_~`"
_HIDDEN = re.compile(r"</?[a-z][^<>\n]{0,40}>|&\w{2,8};|\[\d+\]|(?m:^\s*\d+[.)]\s)")
_MARKS = str.maketrans(dict.fromkeys("*_~`\\()\u200b\u2060", " "))
_JOINS = re.compile(r"\s*(?:-|–|—|to|or|and)?\s*", re.IGNORECASE)


class Amount(NamedTuple):
    """`value`: a number, or what is written when its sense is not sure. `unit`: "" for a number of nothing known."""

    value: float | str
    unit: str
    per: frozenset[str] = frozenset()

    @property
    def is_dose(self) -> bool:
        return self.unit in _DOSES or (self.unit == "time" and bool(self.per))


_DOSES = frozenset({unit for _, unit, _ in DOSED} | {"every hour"})


class _Said(NamedTuple):
    start: int
    end: int
    amounts: frozenset[Amount]


def amounts(sentence: str) -> set[Amount]:
    """All its numbers, in the units that all of their kind are compared in."""
    return {amount for said in _said(sentence) for amount in said.amounts}


class DoseFilter:
    """Passes text on as it comes. From what may be an amount it holds the rest of the sentence back, since the
    citation stands at its end; amounts that no sentence of a cited source has are replaced. `sources`: their texts."""

    def __init__(self, sources: Sequence[str]) -> None:
        self._known = [[amounts(sentence) for sentence in _sentences(source)] for source in sources]
        self._held = ""
        self._sentence = ""  # what was passed of it

    def feed(self, text: str) -> str:
        self._held += text
        passed = []
        while (piece := self._next()) is not None:
            passed.append(piece)
        return "".join(passed)

    def rest(self) -> str:
        held, self._held = self._held, ""
        return self._checked(held)

    def _next(self) -> str | None:
        """What can be passed now, if anything."""
        begins = MAY_BEGIN.search(self._held)
        ends = SENTENCE_ENDS.search(self._held)
        if begins is None and ends is None:
            return self._pass(len(self._held) - self._unfinished()) or None
        if begins is not None and (ends is None or begins.start() < ends.start()):
            if begins.start() > 0:
                return self._pass(begins.start())
            if ends is None and len(self._held) < HOLD_MAX_CHARACTERS:
                return None
        end = ends.end() if ends is not None else len(self._held)
        sentence, self._held = self._held[:end], self._held[end:]
        checked = self._checked(sentence)
        self._sentence = ""
        return checked

    def _unfinished(self) -> int:
        """The length of a word at the end that may become a number, or of a sentence's end that may get a citation."""
        if self._held.rstrip().endswith((".", "!", "?", "]")) or self._held.endswith("\n"):
            tail = re.search(r"[.!?\n\]]\s*$", self._held)
            return len(tail[0]) if tail else 0
        word = LAST_WORD.search(self._held)
        return len(word[0]) if word and any(one.startswith(word[1].lower()) for one in BEGINNINGS) else 0

    def _pass(self, count: int) -> str:
        passed, self._held = self._held[:count], self._held[count:]
        self._sentence += passed
        return passed

    def _checked(self, text: str) -> str:
        sentence = self._sentence + text
        said = _said(sentence)
        if not any(amount.is_dose for one in said for amount in one.amounts) or self._stands(sentence):
            return text
        start = max(said[0].start, len(self._sentence)) - len(self._sentence)
        end = max(said[-1].end - len(self._sentence), start)
        before, after = text[:start], text[end:]
        marks = before[len(before.rstrip(MARKS)) :]
        if marks and marks[0] in text[start : end + 1]:  # around what is replaced
            before, after = before.rstrip(MARKS), after.lstrip(MARKS)
        return f"{before}{NOT_SAID}{after}"

    def _stands(self, sentence: str) -> bool:
        said = amounts(sentence)
        cited = {int(number) for number in CITED.findall(sentence)}
        known = (known for number in cited if 0 < number <= len(self._known) for known in self._known[number - 1])
        return any(all(_in(amount, there) for amount in said) for there in known)


def _in(amount: Amount, known: set[Amount]) -> bool:
    return amount in known or (not amount.unit and any(amount.value == one.value for one in known))


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for end in SENTENCE_ENDS.finditer(text):
        yield text[start : end.end()]
        start = end.end()
    yield text[start:]


def _said(sentence: str) -> list[_Said]:
    """A range's first part has the second's "per": "10 mg to 15 mg per kg"."""
    plain = _HIDDEN.sub(lambda found: " " * len(found[0]), sentence).translate(_MARKS)
    said: list[_Said] = []
    for found in reversed(list(TOKEN.finditer(plain))):
        named = _amounts(found)
        if said and _JOINS.fullmatch(plain, found.end(), said[0].start):
            per = {one.unit: one.per for one in said[0].amounts}
            named = [one._replace(per=one.per or per.get(one.unit, one.per)) for one in named]
        said.insert(0, _Said(found.start(), found.end(), frozenset(named)))
    return said


def _amounts(found: re.Match[str]) -> list[Amount]:
    if found["often"]:
        return [Amount(1.0 if found["often"].lower() == "once" else 2.0, "time", _per(found["per_often"]))]
    if found["hour"]:
        return [Amount(1.0, "every hour")]
    if found["period"]:
        unit = f"every {_kind(found['period'], OTHER)}"
        return [Amount(value, unit) for value in (_values(found["every"]) if found["every"] else [1.0])]
    per = _per(found["per"]) | ({"day"} if found["daily"] else frozenset())
    return [Amount(*_scaled(value, found), per) for value in _values(found["numbers"])]


def _scaled(value: float | str, found: re.Match[str]) -> tuple[float | str, str]:
    """The number of what, in that unit."""
    if found["again"] is not None:
        return value, "of these"
    if found["hourly"]:
        return value, "every hour"
    written = found["unit"] or found["pieces"] or ""
    for pattern, unit, factor in DOSED:
        if re.fullmatch(pattern, written, re.IGNORECASE):
            return (round(value * factor, 6), unit) if isinstance(value, float) else (f"{value} {written}", unit)
    if written.lower() in ("time", "times", "x"):
        return value, "time"
    return value, _kind(written, OTHER)


def _kind(written: str, known: Sequence[tuple[str, str]]) -> str:
    return next((kind for pattern, kind in known if re.fullmatch(pattern, written, re.IGNORECASE)), "")


def _per(written: str) -> frozenset[str]:
    adverbs = {"daily": "day", "nightly": "day", "hourly": "hour", "weekly": "week", "monthly": "month"}
    words = re.findall(rf"\b(?:{_either(PER)}|{'|'.join(adverbs)})\b", written, re.IGNORECASE)
    return frozenset(adverbs.get(word.lower()) or _kind(word, PER) for word in words)


def _values(numbers: str) -> list[float | str]:
    return [_value(one) for one in re.findall(_NUMBER, numbers, re.IGNORECASE)]


def _value(number: str) -> float | str:
    """As English has it: a comma before three digits parts thousands. What may be meant otherwise stays as written."""
    written = " ".join(number.lower().split())
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", written) and not written.startswith("0"):
        return float(written.replace(",", ""))
    if re.fullmatch(r"0\.\d+|\.\d+|\d+(?:\.(?:\d\d?|\d{4,}))?", written):
        return float(written)
    if written.replace(" and a half", "").replace("-", " ").split()[0] in WORDS:
        return _spelt(written)
    return {"½": 0.5, "1/2": 0.5, "half": 0.5, "¼": 0.25, "1/4": 0.25, "quarter": 0.25, "¾": 0.75, "3/4": 0.75}.get(
        written, written
    )


def _spelt(written: str) -> float | str:
    whole = written.removesuffix(" and a half")
    total = current = 0
    for word in re.split(r"[\s-]+(?:and\s+)?", whole):
        value = WORDS.get(word)
        if value is None or (value < 100 and current % 100 and not (current % 100 >= 20 and value < 10)):
            return written
        if value < 100:
            current += value
        elif value == 100:
            current = max(current, 1) * 100
        else:
            total, current = total + max(current, 1) * 1000, 0
    return float(total + current) + (0.5 if whole != written else 0.0)
