"""BERT's uncased WordPiece, as the encoder was trained with it. Pure Python: no tokeniser package, no download."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.resources import files

UNKNOWN, START, END = "[UNK]", "[CLS]", "[SEP]"
WORD_MAX_CHARACTERS = 100
ASCII_WORD = re.compile(r"[a-z0-9]+|[^a-z0-9 ]")  # of a printable text, in lower case
# Ideographs, each a word of its own: the blocks that BERT's tokeniser names.
IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@cache
def vocabulary() -> dict[str, int]:
    lines = files(__package__).joinpath("wordpiece_vocab.txt").read_text(encoding="utf-8").splitlines()
    return {piece: number for number, piece in enumerate(lines)}


def piece_ids(parts: Iterable[str], max_pieces: int) -> tuple[list[int], list[int]]:
    """The ids of all parts between one start and one end mark, which count; what is too long is cut at its end.

    Also the position after each part's last piece.
    """
    known = vocabulary()
    ids, ends = [known[START]], []
    for part in parts:
        ids += [known[piece] for word in words(part) for piece in pieces(word)]
        ends.append(min(len(ids), max_pieces - 1))
    return [*ids[: max_pieces - 1], known[END]], ends


@lru_cache(maxsize=20_000)
def pieces(word: str) -> tuple[str, ...]:
    """The longest known beginning, then the longest known continuation, and so on; else one `[UNK]`."""
    known = vocabulary()
    found: list[str] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if mark + word[start:end] in known), 0)
        if not end or len(word) > WORD_MAX_CHARACTERS:
            return (UNKNOWN,)
        found.append(mark + word[start:end])
        start = end
    return tuple(found)


def words(text: str) -> Iterator[str]:
    """Lower case, without accents; every punctuation mark and every ideograph is a word."""
    if text.isascii() and text.isprintable():
        yield from ASCII_WORD.findall(text.lower())
        return
    spaced = "".join(_character(character) for character in text)
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFC", spaced).lower())
    for word in "".join(c for c in plain if unicodedata.category(c) != "Mn").split():
        yield from _split_at_punctuation(word)


def _character(character: str) -> str:
    code = ord(character)
    if any(first <= code <= last for first, last in IDEOGRAPHS):
        return f" {character} "
    if character in "\t\n\r":
        return " "
    category = unicodedata.category(character)
    if code in (0, 0xFFFD) or category in ("Cc", "Cf", "Co"):
        return ""
    return " " if category == "Zs" else character


def _split_at_punctuation(word: str) -> Iterator[str]:
    start = 0
    for position, character in enumerate(word):
        if _is_punctuation(character):
            if position > start:
                yield word[start:position]
            yield character
            start = position + 1
    if start < len(word):
        yield word[start:]


def _is_punctuation(character: str) -> bool:
    """As BERT has it: every ASCII character that is no letter, digit or space, and Unicode's P classes."""
    ascii_mark = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return ascii_mark or unicodedata.category(character).startswith("P")
