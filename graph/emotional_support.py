"""Answers distress: short and warm, one open question, no diagnosis, no medicine."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from graph.models import speak
from graph.parts import Parts
from graph.red_flags import INTERNATIONAL, crisis_line, crisis_reminder, emergency_number, regions
from graph.state import State, recent, user_message

SUPPORT_MAX_WORDS = 150
PROMPT = """You answer someone who is in distress, on a page for general health information.
Write two to four short, warm sentences in plain words. Say back what you heard, without judging it or making it less.
Ask exactly one open question at the end. Name no illness, give no diagnosis, mention no medicine and no dose.
Never say that you are a person. If they may be in danger, say that they should call {number}.
Say once, and only where it fits, that a doctor or someone they trust can help as well."""

WARM_OPENING = "It is understandable that this worries you. Here is what the articles say.\n\n"
COMPANY = "Someone you trust, or a doctor, can be there with you in ways that a page like this can't."
WAY_ON = "If you would rather have information, ask me that and I will look it up in the articles here."

CLINICAL = re.compile(
    r"\b(?:diagnos\w+|disorder|prescri\w+|medications?|medicines?|tablets?|pills?|antidepressants?|\d+ ?m?g|bipolar|"
    r"schizo\w+|\w+(?:prazole|azepam|oxetine|traline)|you (?:have|suffer from) (?:depression|anxiety|ptsd)|"
    r"i am (?:a )?(?:human|person|doctor))\b",
    re.IGNORECASE,
)


class Reply(NamedTuple):
    """What is said when `sign` is in the message: of the first whose sign is there, what was not said yet. It says back
    what was heard, in general words, and names no illness."""

    sign: re.Pattern[str]
    heard: tuple[str, ...]
    questions: tuple[str, ...]


RELATIVES = (
    r"(?:mum|mom|mother|dad|father|wife|husband|partner|son|daughter|child|baby|brother|sister|friend|grand\w+|uncle|aunt"
    r"|family|boyfriend|girlfriend|parents)"
)
REPLIES = (
    Reply(
        re.compile(
            r"\bdied\b|passed away|grie[fv]|broke up|left me|heartbroken|heart is broken|miss (?:him|her|my)"
            rf"|\blos[te]\w* (?:him|her|my (?:\w+ )?(?:{RELATIVES}|dog|cat))\b"
        ),
        (
            "I am so sorry. Losing someone, or something that was part of your life, can hurt in waves, "
            "and there is no right way to grieve.",
            "That loss is with you in everything at the moment, and it may take all the time that it needs.",
        ),
        ("What would you like to tell me about it?", "What do you miss most right now?"),
    ),
    Reply(
        re.compile(
            rf"\bmy (?:\w+ )?{RELATIVES}\b.*\b(?:diagnos\w+|ill|sick|cancer|tumou?r|dementia|hospital|surgery|operation"
            r"|stroke|dying|chemo\w*)\b"
        ),
        (
            "I am so sorry. It is hard to take in that someone close to you is so ill, and tears are an answer to it, "
            "not a weakness.",
            "It is a lot to stand beside someone who is ill, and to be afraid for them.",
        ),
        ("What has been on your mind most since you heard it?", "Who looks after you while you worry about them?"),
    ),
    Reply(
        re.compile(
            r"\b(?:nobody|no one) (?:cares|understands|listens|likes me|loves me)"
            rf"|\b(?:my (?:\w+ )?{RELATIVES}|they|he|she) (?:ignores?|yells?|shouts?"
            r"|(?:does|do)(?:n't|nt| not) (?:even |really )?(?:care|understand|listen|like me|love me|see))\b"
        ),
        (
            "It hurts when those who should be there do not seem to see what you are going through, "
            "and feeling alone with it says nothing bad about you.",
            "To have nobody at your side in this makes a hard time much harder.",
        ),
        ("Who has been a little easier to talk to than others?", "What would you wish that they understood?"),
    ),
    Reply(
        re.compile(r"scared|afraid|anxious|worried|frightened|terrified|panick|nervous"),
        (
            "That sounds frightening, and it makes sense that it is hard to think of anything else. "
            "Fear often eases a little when it is shared and when the next small step is clear.",
            "The fear is still there, and it was right to say so again.",
        ),
        ("What worries you most right now?", "When is it a little quieter?"),
    ),
    Reply(
        re.compile(r"lonely|alone|nobody|no one"),
        (
            "That sounds lonely, and I am glad that you wrote it down here. "
            "Feeling alone is heavy, and it says nothing bad about you.",
            "Being alone with so much makes the hours long. It is good that you go on writing.",
        ),
        ("Who has been a little easier to talk to than others?", "What helps you through an evening?"),
    ),
    Reply(
        re.compile(
            r"(?:can't|cant|cannot|not|don't|hardly) sleep|sleepless|awake (?:all|at) night|nightmares?|no sleep"
        ),
        (
            "Nights without sleep make everything heavier, and by day there is no rest from it either.",
            "Lying awake night after night wears anyone out.",
        ),
        ("What goes through your mind when you lie awake?", "What makes a night a little better?"),
    ),
    Reply(
        re.compile(
            r"\b(?:jobs?|work|boss|fired|laid off|redundan\w+|unemployed|exams?|school|university|colleagues?)\b"
        ),
        (
            "A job or studies that go wrong take more than the day's hours: they get into how one sees oneself.",
            "It takes strength to go on under such pressure, and yours is not endless.",
        ),
        ("What about it weighs most today?", "What would give you some room to breathe?"),
    ),
    Reply(
        re.compile(r"stress|exhausted|overwhelmed|burnt? out|can't cope|cannot cope|too much|any ?more"),
        (
            "That sounds like a lot to carry for a long time. Being worn out by it is no weakness.",
            "You have carried this for long, and it has not become lighter.",
        ),
        ("Which part of it weighs most today?", "What could wait until tomorrow?"),
    ),
    Reply(
        re.compile(""),
        (
            "Thank you for telling me. It sounds as if things are very heavy at the moment, "
            "and I am sorry that they are.",
            "I am still here and reading. There is no hurry, and no wrong way to say it.",
            "Thank you for going on. What you feel matters, also when it is hard to put into words.",
        ),
        (
            "What has been the hardest part of today?",
            "What would make the next hours a little easier?",
            "What else would you like me to know?",
        ),
    ),
)


class EmotionalSupport:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def answer(self, state: State) -> dict[str, Any]:
        parts = self._parts
        if parts.writes:
            prompt = SystemMessage(PROMPT.format(number=emergency_number(parts.region)))
            history = recent(state["messages"], parts.history_tokens)
            spoken = await speak(parts.model, [prompt, *history], shown=False)
            ending = handed_over(_said(state), parts.region)
            fitting = fits(spoken.content)
            content = f"{spoken.content.strip()}\n\n{ending}" if fitting else self._reviewed(state)
            spoken = spoken._replace(content=content)
        else:
            spoken = await speak(parts.reciter, [HumanMessage(self._reviewed(state))])
        answer = AIMessage(spoken.content, id=f"{state['turn_id']}:assistant", usage_metadata=spoken.usage)
        return {"messages": [answer], "citations": [], "abstained": False}

    def _reviewed(self, state: State) -> str:
        return reviewed(user_message(state), self._parts.region, _said(state))


def fits(reply: str) -> bool:
    """Read before anyone sees it: a model that forgets itself, or its one question, is not shown."""
    return len(reply.split()) <= SUPPORT_MAX_WORDS and reply.count("?") == 1 and CLINICAL.search(reply) is None


def reviewed(message: str, region: str = INTERNATIONAL, said: Sequence[str] = ()) -> str:
    """Of a few fixed texts what was not `said` yet, in the earlier answers, oldest first. Each says whom to call if it
    becomes too much, the first one at length."""
    plain = message.lower().replace("’", "'")
    reply = next(reply for reply in REPLIES if reply.sign.search(plain))
    heard, question = _least_said(reply.heard, said), _least_said(reply.questions, said)
    company, way_on = ("", "") if _handed_over_before(said) else (f" {COMPANY}", f" {WAY_ON}")
    return f"{heard}{company}\n\n{question}\n\n{handed_over(said, region)}{way_on}"


def handed_over(said: Sequence[str], region: str) -> str:
    """Whom to call: a sentence at first, later few words."""
    return crisis_reminder(region) if _handed_over_before(said) else crisis_line(region)


def _handed_over_before(said: Sequence[str]) -> bool:
    return any(crisis_line(region) in text for region in regions() for text in said)


def _least_said(texts: Sequence[str], said: Sequence[str]) -> str:
    """The first that was never said, else the one that was said longest ago."""
    return min(texts, key=lambda text: max((n for n, one in enumerate(said, start=1) if text in one), default=0))


def _said(state: State) -> list[str]:
    return [message.text for message in state["messages"] if isinstance(message, AIMessage)]
