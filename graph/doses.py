"""A dose is said only when the passage that is cited with it says the same number and unit. Pure."""

import re
from collections.abc import Sequence

NOT_SAID = "an amount that a pharmacist or the package leaflet can tell you"
HOLD_MAX_CHARACTERS = 600
WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
WORDS |= {"eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "fifty": 50, "hundred": 100}
UNITS: tuple[tuple[str, str, float], ...] = (
    (r"mg|milligram(?:me)?s?", "mg", 1),
    (r"mcg|[µμ]g|microgram(?:me)?s?", "mg", 0.001),
    (r"g|gram(?:me)?s?", "mg", 1000),
    (r"kg|kilo(?:gram(?:me)?)?s?", "mg", 1_000_000),
    (r"ml|millilit(?:re|er)s?|cc", "ml", 1),
    (r"l|lit(?:re|er)s?", "ml", 1000),
    (r"(?:international )?units?|iu", "unit", 1),
    (r"tablets?|tabs?|pills?|capsules?|caplets?|lozenges?|sachets?", "piece", 1),
    (r"drops?", "drop", 1),
    (r"puffs?|sprays?|inhalations?", "puff", 1),
    (r"teaspoon(?:ful)?s?|tsp", "teaspoon", 1),
    (r"tablespoon(?:ful)?s?|tbsp", "tablespoon", 1),
    (r"doses?", "dose", 1),
    (r"times? (?:a|per|each|every) day|times? daily|x daily", "a day", 1),
)
_NUMBER = rf"(?:\d+(?:[.,]\d+)*|(?:{'|'.join(WORDS)})\b)"
_RANGE = rf"{_NUMBER}(?:\s*(?:-|–|—|to|or|and)\s*{_NUMBER})?"
AMOUNT = re.compile(
    rf"(?<![\w\[])(?:(?P<numbers>{_RANGE})[\s-]*(?P<unit>{'|'.join(pattern for pattern, _, _ in UNITS)})\b(?!/\w*l\b)"
    rf"|every (?P<hours>{_RANGE})[\s-]*hours?\b|(?P<twice>once|twice) (?:a day|daily|per day|each day))",
    re.IGNORECASE,
)
MAY_BEGIN = re.compile(rf"(?<![\w\[])(?:\d|(?:{'|'.join(WORDS)}|every|once|twice)\b)", re.IGNORECASE)
SENTENCE_ENDS = re.compile(r"(?:[.!?](?=\s)|\n)(?:\s*\[\d+\])*(?=\s*[^\s\[])")
LAST_WORD = re.compile(r"(?<!\w)[a-zA-Z]+$")


def amounts(text: str) -> set[tuple[float, str]]:
    """Each number with its unit, in the unit that all of its kind are compared in."""
    return {amount for found in AMOUNT.finditer(text) for amount in _amounts(found)}


class DoseFilter:
    """Passes text on as it comes. From what may be an amount it holds the rest of the sentence back, since the
    citation stands at its end; an amount that no cited source has is replaced. `sources`: their texts."""

    def __init__(self, sources: Sequence[str]) -> None:
        self._known = [amounts(source) for source in sources]
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
        starts = (*WORDS, "every", "once", "twice")
        return len(word[0]) if word and any(start.startswith(word[0].lower()) for start in starts) else 0

    def _pass(self, count: int) -> str:
        passed, self._held = self._held[:count], self._held[count:]
        self._sentence += passed
        return passed

    def _checked(self, text: str) -> str:
        cited = {int(number) for number in re.findall(r"\[(\d+)\]", self._sentence + text)}
        known = set().union(*(self._known[number - 1] for number in cited if 0 < number <= len(self._known)))
        return AMOUNT.sub(lambda found: found[0] if _amounts(found) <= known else NOT_SAID, text)


def _amounts(found: re.Match[str]) -> set[tuple[float, str]]:
    if found["twice"]:
        return {(1.0 if found["twice"].lower() == "once" else 2.0, "a day")}
    if found["hours"]:
        return {(_value(number), "hourly") for number in re.findall(_NUMBER, found["hours"], re.IGNORECASE)}
    unit, factor = next((unit, factor) for p, unit, factor in UNITS if re.fullmatch(p, found["unit"], re.IGNORECASE))
    numbers = re.findall(_NUMBER, found["numbers"], re.IGNORECASE)
    return {(round(_value(number) * factor, 6), unit) for number in numbers}


def _value(number: str) -> float:
    """A comma or a point before three digits parts thousands."""
    if number.lower() in WORDS:
        return float(WORDS[number.lower()])
    plain = re.sub(r"[.,](?=\d{3}(?:\D|$))", "", number)
    return float(plain.replace(",", ".")) if plain.count(".") + plain.count(",") <= 1 else 0.0
