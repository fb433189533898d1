"""Routes a turn: information, distress, or both. Rules decide what is plain; what they leave open costs one call of
a model, where there is one that writes. What the model says is never shown."""

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.constants import TAG_NOSTREAM
from pydantic import BaseModel, Field

from graph.crisis import alarm_of
from graph.leaning import (
    SMALL_TALK,
    any_of,
    goes_on_with,
    is_elliptic,
    leans,
    plain,
    subject,
    without_filler,
    without_hearsay,
)
from graph.parts import Parts
from graph.red_flags import categories, tells_of_a_sign
from graph.state import State, recent

logger = logging.getLogger(__name__)
ANSWERS_MAX_WORDS = 12
RAMBLES_FROM_WORDS = 45
CLAUSE_MAX_WORDS = 30
ROUTE_SECONDS = 4.0
ROUTE_TOKENS = 800
PROMPT = """You sort messages of a page for general health information. Answer with the fields alone.
agent: emotional_support when the last message only tells of feelings; rag_agent when it asks for anything to look up.
question: the last message as one short question that can be understood without the conversation, in its language.
emergency: what somebody seems to be in danger of now, or none. Categories: {categories}."""


I_AM = r"i(?:'m| am| feel| have been|'ve been)(?: \w+){0,3}?"
CLOSE_ONES = (
    r"(?:mum|mom|mother|dad|father|wife|husband|partner|son|daughter|child|baby|brother|sister|friend|best friend|"
    r"grand\w+|uncle|aunt|boyfriend|girlfriend|dog|cat|family|job|home)"
)
GRIEF = any_of(
    rf"(?:lost|miss|missing) (?:him|her|them|my {CLOSE_ONES})|(?:my|our) (?:\w+ )?{CLOSE_ONES} (?:has )?(?:just )?died",
    r"passed away|left me|broke up with me|(?:my )?heart is broken|heartbroken|grieving|(?:keep|stop) crying",
    r"(?:can't|cannot|can not) (?:cope|go on|take (?:it|this) any ?more|handle (?:it|this|any ?more))",
    r"(?:nobody|no one) (?:cares|understands|likes me|loves me)|i hate (?:myself|my life)|need (?:someone )?to talk",
    r"everything (?:feels|is) (?:too much|pointless|hopeless)|feel like (?:a failure|crying|giving up)",
    rf"{I_AM} (?:sad|lonely|alone|hopeless|overwhelmed|empty|ashamed|guilty|miserable|desperate|worthless|burnt? out)",
)
WORRY = any_of(
    rf"{I_AM} (?:scared|afraid|anxious|worried|stressed|depressed|frightened|terrified|panicking|lost|nervous|upset)",
    rf"{I_AM} struggling(?! to (?:sleep|breathe|swallow|walk|lose|eat|stand))|i feel (?:awful|so bad|so down|down)",
)
QUESTION = any_of(
    r"what|which|when (?:should|do|to)|why (?:do|does|is|are)|could (?:it|this|that)|can (?:i|you|it|a|the)|should i",
    r"how (?:do|does|can|long|much|many|often|is|are|to|common|serious)|is (?:this|that|my)|do i|does|are there",
    r"is it (?:safe|normal|dangerous|serious|ok|okay|contagious)|tell me about|explain",
    r"(?:symptoms?|treatments?) (?:of|for)",
)
MATTER = any_of(
    r"symptoms?|treatments?|side effects?|dose|medicines?|medications?|tablets?|pills?|cancer|tests?|results?|vaccine",
    r"diagnos\w+|blood|lumps?|mole|rash|pains?|aches?|\w*ache|fever|cough\w*|bleed\w*|swell\w*|swollen|infection|tumou?r",
    r"hurts?|itch\w*|dizz\w*|vomit\w*|surgery|operation|scan|heart(?:beat)?|chest|stomach|diabetes|stroke|allerg\w+",
    r"pregnan\w+|palpitations|numb(?:ness)?|weight|skin|period|urine|stool|cholesterol|covid\w*|flu",
)
CLAUSE_ENDS = (
    re.compile(r"(?<=[.!?…])\s+|\n+"),
    re.compile(r"[,;]\s+|\s+[–-]+\s+"),
    re.compile(
        r"\s+(?=(?:and|but|so|because|anyway|also|then|plus|what|how|which|why)\b)"
        r"|(?<!what)(?<!how)(?<!when)(?<!where)\s+(?=(?:should|can) i\b)",
        re.IGNORECASE,
    ),
)
OPENING = re.compile(r"^(?:(?:anyway|so|well|also|you know|i mean|but|and)\b[ ,]*)+", re.IGNORECASE)
ASKS_FOR_OPINION = re.compile(r"\s*\b(?:or )?what do you (?:think|reckon|make of)\b.*$", re.IGNORECASE)
WHAT_IS_IT = "What could it be?"
FAREWELL = any_of("thanks?", "thank you", "bye", "goodbye", "hello", "hi", "hey")
WHAT_NOW = re.compile(r"\b(?:what|how) (?:do|can|should|am) i (?:do|go on|supposed to|cope)\b(?! (?:take|treat|use))")


def feels(message: str) -> bool:
    said = plain(message)
    return GRIEF.search(said) is not None or WORRY.search(said) is not None


def asks(message: str) -> bool:
    """Whether there is something to look up. "What should I do?" after distress is no question for a library, and who
    grieves over an illness does not ask about it; who worries about a sign of one does."""
    said = plain(message)
    without = WHAT_NOW.sub(" ", said) if feels(message) else said
    return QUESTION.search(without) is not None or (MATTER.search(without) is not None and not GRIEF.search(said))


class Routing(NamedTuple):
    """`plain`: the rules are sure of the agent and of the question, and nobody tells of a sign."""

    agent: Literal["rag_agent", "emotional_support"]
    question: str
    warm: bool
    plain: bool


class Asked(BaseModel):
    """What the model says about a message."""

    agent: Literal["rag_agent", "emotional_support"]
    question: str = Field(min_length=1, max_length=400)
    emergency: str = "none"


class Supervisor:
    def __init__(self, parts: Parts) -> None:
        self._router = parts.router
        self._instructions = SystemMessage(PROMPT.format(categories=", ".join(categories())))

    async def route(self, state: State) -> dict[str, Any]:
        """A model may add an alarm; the gate before it has had its say, so it takes none away."""
        ruled = by_rules(state["messages"])
        asked = None if ruled.plain or self._router is None else await self._ask(state["messages"])
        if asked is None:
            return {"agent": ruled.agent, "question": ruled.question, "warm": ruled.warm}
        if asked.emergency in categories():
            return {"agent": "safety", "alarm": asked.emergency}
        return {"agent": asked.agent, "question": asked.question, "warm": ruled.warm and asked.agent == "rag_agent"}

    async def _ask(self, messages: Sequence[AnyMessage]) -> Asked | None:
        """None when it does not answer in time, or not as it should: then the rules' guess stands."""
        assert self._router is not None
        said: list[BaseMessage] = [self._instructions, *recent(messages, ROUTE_TOKENS)]
        try:
            async with asyncio.timeout(ROUTE_SECONDS):
                structured = self._router.with_structured_output(Asked)
                return cast(Asked, await structured.ainvoke(said, {"tags": [TAG_NOSTREAM]}))
        except Exception as error:  # of whatever provider: an answer without its help is better than none
            logger.warning("routing without the model: %s", type(error).__name__)
            return None


def by_rules(messages: Sequence[AnyMessage]) -> Routing:
    said = [message.text for message in messages if isinstance(message, HumanMessage)]
    message = said[-1]
    distressed, information = feels(message), asks(message)
    if _answers_support(said):
        return Routing("emotional_support", message, warm=False, plain=True)
    agent: Literal["rag_agent", "emotional_support"] = (
        "emotional_support" if distressed and not information else "rag_agent"
    )
    leaning = len(said) > 1 and leans(message)
    rambling = len(message.split()) >= RAMBLES_FROM_WORDS
    question = condense(messages)
    return Routing(
        agent,
        question,
        warm=distressed and information,
        plain=(distressed or information)
        and not leaning
        and not (rambling and information)
        and not tells_of_a_sign(message),
    )


def _answers_support(said: Sequence[str]) -> bool:
    """Whether the last is a short answer ("I don't know") to the open question of emotional_support, which goes on as
    long as there are such answers."""
    for before, message in zip(said[-2::-1], said[:0:-1], strict=True):
        long = len(message.split()) > ANSWERS_MAX_WORDS
        if long or feels(message) or asks(message) or FAREWELL.search(plain(message)):
            return False
        if feels(before) and not asks(before):
            return True
    return False


def condense(messages: Sequence[AnyMessage]) -> str:
    """The last question; one that leans on the question before it ("and for children?") is joined with that."""
    *earlier, (_, last) = _said(messages)
    before = _leant_on(earlier) if leans(last) else None
    return f"{subject(core(before), whole=is_elliptic(last))} {without_filler(last)}" if before else core(last)


def _said(messages: Sequence[AnyMessage]) -> list[tuple[str, str]]:
    """What the user said, each with the answer before it."""
    said: list[tuple[str, str]] = []
    answer = ""
    for message in messages:
        if isinstance(message, HumanMessage):
            said.append((answer, message.text))
        else:
            answer = message.text
    return said


def _leant_on(earlier: Sequence[tuple[str, str]]) -> str | None:
    """The newest that names a subject by itself: no thanks, no answer to emotional_support, and nothing of how the help
    came after an alarm."""
    texts = [text for _, text in earlier]
    oldest = None
    for number, (answer, text) in reversed(list(enumerate(earlier, start=1))):
        of_alarm = alarm_of(answer) is not None and not asks(text)
        if of_alarm or SMALL_TALK.fullmatch(text) or _answers_support(texts[:number]):
            continue
        if not leans(text):
            return text
        if named := goes_on_with(text):
            return named
        oldest = text
    return oldest


def core(message: str) -> str:
    """Of a long message, its sentences that ask, after two that tell of a matter; when none asks, all of it."""
    if len(message.split()) < RAMBLES_FROM_WORDS:
        return without_hearsay(message)
    sentences = [said for clause in _clauses(message) if (said := _said_plainly(clause))]
    asking = [one for one in sentences if one.rstrip().endswith("?") or QUESTION.search(plain(one))]
    telling = [one for one in sentences if one not in asking and MATTER.search(plain(one))]
    return " ".join([*telling[-2:], *asking[-2:]]) if asking else message


def _said_plainly(clause: str) -> str:
    said = OPENING.sub("", clause)
    return (ASKS_FOR_OPINION.sub("", said) or WHAT_IS_IT) if said else ""


def _clauses(message: str) -> list[str]:
    """Its sentences; of one that does not end, what stands between commas, and else between the words that join."""
    parts = [message]
    for end in CLAUSE_ENDS:
        parts = [
            piece
            for part in parts
            for piece in (end.split(part) if len(part.split()) > CLAUSE_MAX_WORDS else [part])
            if piece.strip()
        ]
    return parts
