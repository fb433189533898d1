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
from graph.parts import Parts
from graph.red_flags import categories, tells_of_a_sign
from graph.state import State, recent

logger = logging.getLogger(__name__)
LEANS_MAX_WORDS = 8
ANSWERS_MAX_WORDS = 12
RAMBLES_FROM_WORDS = 45
CLAUSE_MAX_WORDS = 30
ROUTE_SECONDS = 4.0
ROUTE_TOKENS = 800
PROMPT = """You sort messages of a page for general health information. Answer with the fields alone.
agent: emotional_support when the last message only tells of feelings; rag_agent when it asks for anything to look up.
question: the last message as one short question that can be understood without the conversation, in its language.
emergency: what somebody seems to be in danger of now, or none. Categories: {categories}."""


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b")


I_AM = r"i(?:'m| am| feel| have been|'ve been)(?: \w+){0,3}?"
CLOSE_ONES = (
    r"(?:mum|mom|mother|dad|father|wife|husband|partner|son|daughter|child|baby|brother|sister|friend|best friend|"
    r"grand\w+|uncle|aunt|boyfriend|girlfriend|dog|cat|family|job|home)"
)
GRIEF = _any(
    rf"(?:lost|miss|missing) (?:him|her|them|my {CLOSE_ONES})|(?:my|our) (?:\w+ )?{CLOSE_ONES} (?:has )?(?:just )?died",
    r"passed away|left me|broke up with me|(?:my )?heart is broken|heartbroken|grieving|(?:keep|stop) crying",
    r"(?:can't|cannot|can not) (?:cope|go on|take (?:it|this) any ?more|handle (?:it|this|any ?more))",
    r"(?:nobody|no one) (?:cares|understands|likes me|loves me)|i hate (?:myself|my life)|need (?:someone )?to talk",
    r"everything (?:feels|is) (?:too much|pointless|hopeless)|feel like (?:a failure|crying|giving up)",
    rf"{I_AM} (?:sad|lonely|alone|hopeless|overwhelmed|empty|ashamed|guilty|miserable|desperate|worthless|burnt? out)",
)
WORRY = _any(
    rf"{I_AM} (?:scared|afraid|anxious|worried|stressed|depressed|frightened|terrified|panicking|lost|nervous|upset)",
    rf"{I_AM} struggling(?! to (?:sleep|breathe|swallow|walk|lose|eat|stand))|i feel (?:awful|so bad|so down|down)",
)
QUESTION = _any(
    r"what|which|when (?:should|do|to)|why (?:do|does|is|are)|could (?:it|this|that)|can (?:i|you|it|a|the)|should i",
    r"how (?:do|does|can|long|much|many|often|is|are|to|common|serious)|is (?:this|that|my)|do i|does|are there",
    r"is it (?:safe|normal|dangerous|serious|ok|okay|contagious)|tell me about|explain",
    r"(?:symptoms?|treatments?) (?:of|for)",
)
MATTER = _any(
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
FAREWELL = _any("thanks?", "thank you", "bye", "goodbye", "hello", "hi", "hey")
WHAT_NOW = re.compile(r"\b(?:what|how) (?:do|can|should|am) i (?:do|go on|supposed to|cope)\b(?! (?:take|treat|use))")
LEANS = re.compile(r"^\W*" + _any(
    r"and|but|also|so|or|what about|how about|what if|why(?= not\b|\W*$)",
    r"is it|is that|are they|does it|do they|can it|can they",
    r"(?:for|in) (?:children|kids|adults|women|men|babies|pregnan\w+|older)",
).pattern)  # fmt: skip
POINTS_BACK = _any("it|its|that|this|them|they|those|these", r"(?:which|the(?: \w+)?) ones?")
SMALL_TALK = re.compile(
    r"\W*(?:(?:(?:hello|hi|hey|good (?:morning|evening|afternoon|night)|thanks?|thank you|thx|ok|okay|bye|goodbye|great"
    r"|cool|perfect|got it|i see|understood|all ?right)(?: there| so much| very much| a lot| again| for (?:that|this|"
    r"(?:the|your) (?:help|answer)))?|(?:that|this|it)(?:['’]?s| is| was| has)? (?:helps|helped|helpful|useful|great|"
    r"good to know)(?: me)?(?: a lot)?)\b\W*)+",
    re.IGNORECASE,
)
SUBJECT = re.compile(
    r"\b(?:symptoms?|signs?|causes?|treatments?|side effects?|risks?|dangers?) (?:of|for) ([^.?!,]+?)[\s.?!]*$",
    re.IGNORECASE,
)
# What one gets without being ill, or gets done: "how do people get vitamin D" asks for no cause.
WANTED = (
    r"rid|over|better|well|help\w*|more|less|enough|to|out|off|up|down|away|back|on|in|into|through|by|for|from|with|at"
    r"|without|under|some|any|your|my|our|their|his|her|here|there|tested|checked|done|diagnos\w*|treat\w*|prescri\w*"
    r"|appointments?|results?|pregnant|fit\w*|health\w*|strong\w*|slim\w*|vitamins?|iron|protein|fib(?:re|er)|calcium"
    r"|energy|sleep|exercise|sun\w*|oxygen|antibiotics?|medic\w+|pills?|tablets?|inhalers?|surgery|screen\w*|vaccin\w*"
    r"|shots?|jabs?|scans?|tests?|\w+scop\w+|\w+grams?|\w*therapy|doctors?|ambulances?|information"
)
GETS = re.compile(
    r"\W*(?:(?:so|and|but|ok|okay)\W+)?how (?:(?:do|does|did|can|could) (?:one|you|we|people|some(?:one|body)"
    r"|any(?:one|body)|a person|men|women|adults|children|kids|babies)|did (?:i|he|she|they|my \w+)) (?:\w+ly )?get "
    rf"(?!.*\b(?:{WANTED})\b)(?:an? |the (?=flu|runs|shingles|mumps|measles|hiccups))?"
    r"(?P<what>[a-z][\w'’-]*(?: [\w'’-]+){0,3}?)[\s?.!]*$",
    re.IGNORECASE,
)
OWN_SUBJECT = re.compile(r"\b(?:symptoms|causes|treatment|signs) of \w+")


def feels(message: str) -> bool:
    plain = _plain(message)
    return GRIEF.search(plain) is not None or WORRY.search(plain) is not None


def asks(message: str) -> bool:
    """Whether there is something to look up. "What should I do?" after distress is no question for a library, and who
    grieves over an illness does not ask about it; who worries about a sign of one does."""
    plain = _plain(message)
    without = WHAT_NOW.sub(" ", plain) if feels(message) else plain
    return QUESTION.search(without) is not None or (MATTER.search(without) is not None and not GRIEF.search(plain))


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
        if long or feels(message) or asks(message) or FAREWELL.search(_plain(message)):
            return False
        if feels(before) and not asks(before):
            return True
    return False


def condense(messages: Sequence[AnyMessage]) -> str:
    """The last question; one that leans on the question before it ("and for children?") is joined with that."""
    *earlier, (_, last) = _said(messages)
    subject = _leant_on(earlier) if leans(last) else None
    return f"{_subject(subject)} {last}" if subject else core(last)


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
        oldest = text
    return oldest


def of_causes(question: str) -> str:
    """ "How does one get gout?" asks for what causes it, but its words are nearer to how one gets rid of it."""
    found = GETS.match(question)
    return f"What causes {found['what']}?" if found else question


def core(message: str) -> str:
    """Of a long message, its sentences that ask, after two that tell of a matter; when none asks, all of it."""
    if len(message.split()) < RAMBLES_FROM_WORDS:
        return message
    sentences = _clauses(message)
    asking = [one for one in sentences if one.rstrip().endswith("?") or QUESTION.search(_plain(one))]
    telling = [one for one in sentences if one not in asking and MATTER.search(_plain(one))]
    return " ".join([*telling[-2:], *asking[-2:]]) if asking else message


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


def _subject(question: str) -> str:
    """What the question was about: of "what are the symptoms of iron deficiency?" the illness, so that the symptoms do
    not weigh down the next question; of any other form, all of it."""
    named = SUBJECT.search(question.strip())
    return f"{named[1].capitalize()}:" if named else question.strip()


def leans(question: str) -> bool:
    plain = _plain(question)
    if len(plain.split()) > LEANS_MAX_WORDS or OWN_SUBJECT.search(plain):
        return False
    return LEANS.search(plain) is not None or POINTS_BACK.search(plain) is not None


def _plain(message: str) -> str:
    return message.lower().replace("’", "'")
