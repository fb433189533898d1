"""Mends a question's misspelt words with words of the library, and with those that people ask with."""

import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Literal

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from graph.phrases import one_slip
from graph.retrieval.queries import query
from graph.retrieval.reading import read_again
from graph.retrieval.wordpiece import vocabulary

SHORTEST = 5  # of shorter words too many others are one letter away
SHORTEST_OF_TEXT = 7
PASSAGES = 3  # in which a word of the text stands
WORD = re.compile(rf"[^\W\d_]{{{SHORTEST},}}")
# What medicines are called: by the international stems, and a few that have none.
MEDICINE = re.compile(
    r"aspirin|paracetamol|acetaminophen|insulin|heparin|digoxin|lithium|codeine|colchicine|\w*(?:morphine|thyroxine)"
    r"|methadone|ketamine|tramadol|fentanyl|buprenorphine|naloxone|warfarin|digitalis|amiodarone|loperamide|phenytoin"
    r"|theophylline|amphetamine|nitroglycerin|quinine|estrogen|oestrogen|progesterone|melatonin|ephedrine|atropine"
    r"|heroin|cocaine|cannabis|marijuana|opium|narcotics|adrenaline|testosterone|potassium|magnesium"
    r"|\w+(?:afil|alol|apine|azine|azole|azolam|barbital|caine|cillin|codone|conazole|coxib|cycline|dipine|dronate|epam"
    r"|fenac|floxacin|formin|gabalin|gliptin|gliflozin|glutide|lukast|mab|mycin|nib|olol|olone|onide|oxetine|parin"
    r"|prazole|pril|profen|sartan|semide|sone|statin|terol|thiazide|tidine|triptan|triptyline|trexate|vir|vudine|xaban)"
)
# What people want to know of any illness, in words that articles need not have.
ASKING = (
    *("contagious", "infectious", "catching", "hereditary", "inherited", "genetic", "dangerous", "serious", "curable"),
    *("treatable", "preventable", "prevented", "painful", "harmless", "normal", "common", "complications", "prognosis"),
    *("pregnant", "pregnancy", "breastfeeding", "children", "vaccine", "vaccination", "surgery", "operation"),
)
Kind = Literal["names", "asks", "says", "medicine"]


def strange(question: str) -> list[str]:
    """The words that may be misspelt: the encoder's vocabulary has all that are frequent."""
    return sorted({word for word in WORD.findall(question.lower()) if word not in vocabulary()})


class Spelling:
    """Only words that neither the library nor the encoder's vocabulary knows are mended, by one letter, and only when a
    single word can be meant. No medicine's name is ever put in: who means another medicine must not get that one."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool
        self._version = ""
        self._titles: dict[str, Kind] = {}

    async def mended(self, question: str, unknown: Collection[str]) -> str:
        """The question itself when none of these words of it can be mended."""
        meant = await read_again(lambda: self._slips(unknown))
        return WORD.sub(lambda found: meant.get(found[0].lower(), found[0]), question)

    async def _slips(self, unknown: Collection[str]) -> dict[str, str]:
        near = sorted({meant for word in unknown for meant in _frequent_near(word)})
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query("library_version"))
            version = (await cursor.fetchall())[0]["version"]
            if version != self._version:
                await cursor.execute(query("title_words"), {"shortest": SHORTEST})
                self._titles = {row["word"]: _kind(row) for row in await cursor.fetchall()}
                self._version = version
            await cursor.execute(query("frequent_words"), {"words": near, "passages": PASSAGES})
            said: dict[str, Kind] = {row["word"]: "says" for row in await cursor.fetchall()}
        return slips(unknown, {**said, **dict.fromkeys(ASKING, "asks"), **self._titles})


def _kind(row: Mapping[str, Any]) -> Kind:
    return "medicine" if row["taken"] else "names" if row["titled"] else "asks"


def differing(question: str, read_as: str) -> str:
    """The words that were mended, for a person, and nothing else of the question."""
    pairs = zip(WORD.findall(question), WORD.findall(read_as), strict=True)
    return ", ".join(f"“{written}” as “{meant}”" for written, meant in dict.fromkeys(pairs) if written != meant)


def slips(unknown: Collection[str], known: Mapping[str, Kind]) -> dict[str, str]:
    """What the unknown words can only mean. When that is not clear of all of them, only those that name what an article
    is about: of "simptoms of meisles" the rest would be about the symptoms of anything."""
    near = {word: [meant for meant in known if WORD.fullmatch(meant) and one_slip(word, meant)] for word in unknown}
    clear = {
        word: meant[0]
        for word, meant in near.items()
        if len(meant) == 1 and known[meant[0]] != "medicine" and not MEDICINE.fullmatch(meant[0])
    }
    return {word: meant for word, meant in clear.items() if len(clear) == len(near) or known[meant] == "names"}


def _frequent_near(word: str) -> list[str]:
    """Of the encoder's vocabulary, which has the frequent words of English as they are written."""
    lengths = range(max(SHORTEST_OF_TEXT, len(word) - 1), len(word) + 2)
    return [
        meant for length in lengths for meant in _by_beginning().get((word[0], length), ()) if one_slip(word, meant)
    ]


@cache
def _by_beginning() -> dict[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = {}
    for word in vocabulary():
        if word.isalpha():
            found.setdefault((word[0], len(word)), []).append(word)
    return found
