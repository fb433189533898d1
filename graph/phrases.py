"""Words of a message, and where phrases of a small language stand among them. Pure; time grows with the text alone.

A phrase is words with one space between: `swallow*` a beginning, `his/her` either, `@pain` any single word of that
concept, `..` up to three words that do not matter.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

GAP = ".."
GAP_WORDS = 3
LONGEST_BEGINNING = 14
SHORTEST_CORRECTED = 6  # of shorter words too many others are one letter away
LONGEST_WORD = 40
KEPT_WORDS = 20_000
TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'", "ı": "i", "ł": "l", "ß": "ss", "ø": "o"})
LETTERS = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "!": "i"})
DISGUISED = re.compile(r"(?<=[a-z])[013457@$!](?=[a-z])")
DRAWN_OUT = re.compile(r"([a-z])\1{2,}")
PIECE = re.compile(r"\d+(?:[.,]\d+)?|[^\W\d_]+(?:'[^\W\d_]+)*|\n\s*\n|[.!?…]+|[,;:()]+|\s[-–—]+\s|[&+]")
SENTENCE_ENDS = frozenset(".!?…\n")


class Word(NamedTuple):
    """`after`: what stands before it: "" or a mark, of which `.` ends a sentence and `,` a clause."""

    text: str
    after: str


class Span(NamedTuple):
    start: int
    end: int


class Spelling:
    """Writes words as the rules do: contractions apart, slips of one letter in a few key words mended."""

    def __init__(self, spellings: Mapping[str, str], key_words: Iterable[str], real_words: Iterable[str]) -> None:
        self._spellings = {written: meant.split() for written, meant in spellings.items()}
        self._key_words = frozenset(key_words)
        self._real = frozenset(real_words)
        self._near: dict[str, list[str]] = defaultdict(list)
        for word in sorted(self._key_words):
            for near in {word, *_shortened(word)}:
                self._near[near].append(word)
        self.written = lru_cache(KEPT_WORDS)(self._written)

    def _written(self, word: str) -> tuple[str, ...]:
        if word in self._spellings:
            return tuple(self._spellings[word])
        stem, apostrophe, ending = word.rpartition("'")
        if not apostrophe:
            return (self._mended(word),)
        if ending == "s":
            return self._written(stem)
        return (*self._written(stem), ending)

    def _mended(self, word: str) -> str:
        if len(word) < SHORTEST_CORRECTED - 1 or word in self._key_words or word in self._real:
            return word
        candidates = (meant for near in (word, *_shortened(word)) for meant in self._near.get(near, ()))
        return next((meant for meant in candidates if one_slip(word, meant)), word)


def words(message: str, spelling: Spelling) -> list[Word]:
    plain = message.lower()
    if not plain.isascii():
        marked = unicodedata.normalize("NFKD", plain.translate(TYPOGRAPHY))
        plain = "".join(letter for letter in marked if not unicodedata.combining(letter))
    plain = DISGUISED.sub(lambda found: found[0].translate(LETTERS), DRAWN_OUT.sub(r"\1\1", plain))
    found: list[Word] = []
    mark = "."
    for piece in PIECE.findall(plain):
        if piece in "&+":
            found.append(Word("and", mark))
        elif piece[0].isalnum():
            for text in spelling.written(piece[:LONGEST_WORD]):
                if text == "not" and found and not mark and found[-1].text in ("can", "could"):
                    found[-1] = Word("cannot", found[-1].after)
                else:
                    found.append(Word(text, mark))
                mark = ""
            continue
        else:
            mark = "." if mark == "." or piece[0] in SENTENCE_ENDS else ","
            continue
        mark = ""
    return found


class _Node:
    __slots__ = ("ends", "gap", "steps")

    def __init__(self) -> None:
        self.steps: dict[int, _Node] = {}
        self.gap: _Node | None = None
        self.ends: list[int] = []


class _Known(NamedTuple):
    """`alone`: the sets of which a word is a phrase; `symbols`: what it is in longer phrases; `begins`: roots."""

    alone: tuple[int, ...]
    symbols: tuple[int, ...]
    begins: tuple[_Node, ...]


class Found:
    """Of every set its places, by start; laid together when somebody asks, since most sets are never asked for.
    `numbers` are the sets that have one."""

    def __init__(self, alike: Mapping[tuple[int, ...], list[Span]], longer: Mapping[int, list[Span]]) -> None:
        self._pieces: dict[int, list[list[Span]]] = defaultdict(list)
        for numbers, spans in alike.items():
            for number in numbers:
                self._pieces[number].append(spans)
        for number, spans in longer.items():
            self._pieces[number].append(spans)
        self.numbers = frozenset(self._pieces)

    def __contains__(self, number: int) -> bool:
        return number in self.numbers

    def __getitem__(self, number: int) -> list[Span]:
        pieces = self._pieces.get(number)
        if pieces is None:
            return []
        if len(pieces) > 1:
            pieces[:] = [sorted({span for piece in pieces for span in piece})]
        return pieces[0]


class Phrases:
    """Finds all the given sets of phrases in one pass."""

    def __init__(self, concepts: Mapping[str, Iterable[str]]) -> None:
        self._concepts = {name: list(phrases) for name, phrases in concepts.items()}
        self._root = _Node()
        self._sets: dict[tuple[str, ...], int] = {}
        self._symbols: dict[frozenset[str], int] = {}
        self._alone: dict[str, list[int]] = defaultdict(list)
        self._by_word: dict[str, list[int]] = defaultdict(list)
        self._of = lru_cache(KEPT_WORDS)(self._known_of)

    def add(self, phrases: Iterable[str]) -> int:
        """The number by which `find` reports this set. `@name` alone stands for all phrases of the concept."""
        key = tuple(sorted({one for phrase in phrases for one in self._spread(phrase)}))
        if key not in self._sets:
            self._sets[key] = len(self._sets)
            for phrase in key:
                self._grow(phrase, self._sets[key])
        return self._sets[key]

    def find(self, texts: list[str]) -> "Found":
        known = [self._of(text) for text in texts]
        symbols = [one.symbols for one in known]
        alike: dict[tuple[int, ...], list[Span]] = {}
        longer: dict[int, list[Span]] = defaultdict(list)
        for start, word in enumerate(known):
            if word.alone:
                alike.setdefault(word.alone, []).append(Span(start, start + 1))
            for node in word.begins:
                self._follow(node, start, start + 1, symbols, longer)
        return Found(alike, longer)

    def _follow(
        self, node: _Node, start: int, at: int, symbols: list[tuple[int, ...]], longer: dict[int, list[Span]]
    ) -> None:
        for number in node.ends:
            longer[number].append(Span(start, at))
        if at < len(symbols) and node.steps:
            for symbol in symbols[at]:
                step = node.steps.get(symbol)
                if step is not None:
                    self._follow(step, start, at + 1, symbols, longer)
        if node.gap is not None:
            steps = node.gap.steps
            for then in range(at, min(at + GAP_WORDS + 1, len(symbols))):
                for symbol in symbols[then]:
                    if symbol in steps:
                        self._follow(steps[symbol], start, then + 1, symbols, longer)

    def _spread(self, phrase: str) -> list[str]:
        name = phrase.strip().removeprefix("@")
        if phrase.strip() != f"@{name}" or name not in self._concepts:
            return [" ".join(phrase.split())]
        return [one for inner in self._concepts[name] for one in self._spread(inner)]

    def _grow(self, phrase: str, number: int) -> None:
        node, elements = self._root, phrase.split()
        if len(elements) == 1:
            for word in self._either(phrase):
                self._alone[word].append(number)
            return
        for element in elements:
            if element == GAP:
                node.gap = node.gap or _Node()
                node = node.gap
            else:
                node = node.steps.setdefault(self._symbol(element), _Node())
        if number not in node.ends:
            node.ends.append(number)

    def _symbol(self, element: str) -> int:
        either = self._either(element)
        if either not in self._symbols:
            self._symbols[either] = number = len(self._symbols)
            for word in either:
                self._by_word[word].append(number)
        return self._symbols[either]

    def _either(self, element: str) -> frozenset[str]:
        return frozenset(word for one in element.split("/") for word in self._single_words(one))

    def _single_words(self, element: str) -> list[str]:
        if not element.startswith("@"):
            return [element]
        return [one for one in self._spread(element) if " " not in one]

    def _known_of(self, word: str) -> _Known:
        forms = [word, *(f"{word[:length]}*" for length in range(1, min(len(word), LONGEST_BEGINNING) + 1))]
        alone = dict.fromkeys(number for form in forms for number in self._alone.get(form, ()))
        symbols = dict.fromkeys(number for form in forms for number in self._by_word.get(form, ()))
        begins = (self._root.steps[symbol] for symbol in symbols if symbol in self._root.steps)
        return _Known(tuple(alone), tuple(symbols), tuple(begins))


def _shortened(word: str) -> list[str]:
    return [word[:at] + word[at + 1 :] for at in range(len(word))]


def one_slip(written: str, meant: str) -> bool:
    """One letter too many, too few or wrong, or two neighbours swapped; never the first letter."""
    if written[0] != meant[0] or abs(len(written) - len(meant)) > 1:
        return False
    at = next(
        (n for n, (a, b) in enumerate(zip(written, meant, strict=False)) if a != b), min(len(written), len(meant))
    )
    rest, wanted = written[at:], meant[at:]
    swapped = rest[:2] == wanted[1::-1] and rest[2:] == wanted[2:]
    return rest[1:] == wanted or rest == wanted[1:] or rest[1:] == wanted[1:] or (len(wanted) > 1 and swapped)
