"""Mends a question's misspelt words with words of the library's titles and headings."""

import re
from collections.abc import Collection
from typing import Any

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from graph.phrases import one_slip
from graph.retrieval.queries import query
from graph.retrieval.reading import read_again
from graph.retrieval.wordpiece import vocabulary

SHORTEST = 5  # of shorter words too many others are one letter away
WORD = re.compile(rf"[^\W\d_]{{{SHORTEST},}}")
# What medicines are called: by the international stems, and a few that have none.
MEDICINE = re.compile(
    r"aspirin|paracetamol|acetaminophen|insulin|heparin|digoxin|lithium|codeine|colchicine|\w*(?:morphine|thyroxine)"
    r"|\w+(?:afil|alol|apine|azine|azole|azolam|barbital|caine|cillin|codone|conazole|coxib|cycline|dipine|dronate|epam"
    r"|fenac|floxacin|formin|gabalin|gliptin|gliflozin|glutide|lukast|mab|mycin|nib|olol|olone|onide|oxetine|parin"
    r"|prazole|pril|profen|sartan|semide|sone|statin|terol|thiazide|tidine|triptan|triptyline|trexate|vir|vudine|xaban)"
)


class Spelling:
    """Only words that neither the library nor the encoder's vocabulary knows are mended, by one letter, and only when a
    single word can be meant. No medicine's name is ever put in: who means another medicine must not get that one."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool
        self._version, self._known = "", frozenset[str]()

    async def mended(self, question: str) -> str:
        """The question itself when nothing in it was mended."""
        strange = sorted({word for word in WORD.findall(question.lower()) if word not in vocabulary()})
        meant = await read_again(lambda: self._slips(strange)) if strange else {}
        return WORD.sub(lambda found: meant.get(found[0].lower(), found[0]), question)

    async def _slips(self, strange: list[str]) -> dict[str, str]:
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query("unknown_words"), {"words": strange})
            unknown = await cursor.fetchall()
            if unknown and unknown[0]["version"] != self._version:
                await cursor.execute(query("title_words"), {"shortest": SHORTEST})
                self._known = frozenset(row["word"] for row in await cursor.fetchall())
                self._version = unknown[0]["version"]
        return slips([row["word"] for row in unknown], self._known)


def differing(question: str, read_as: str) -> str:
    """The words that were mended, for a person, and nothing else of the question."""
    pairs = zip(WORD.findall(question), WORD.findall(read_as), strict=True)
    return ", ".join(f"“{written}” as “{meant}”" for written, meant in dict.fromkeys(pairs) if written != meant)


def slips(unknown: Collection[str], known: Collection[str]) -> dict[str, str]:
    """What the unknown words can only mean. Nothing when that is not clear of all of them: of "simptoms of meisles" the
    rest would be about the symptoms of anything."""
    near = {word: [meant for meant in known if WORD.fullmatch(meant) and one_slip(word, meant)] for word in unknown}
    clear = all(len(meant) == 1 and not MEDICINE.fullmatch(meant[0]) for meant in near.values())
    return {word: meant[0] for word, meant in near.items()} if clear else {}
