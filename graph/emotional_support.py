"""Answers distress: short and warm, one open question, no diagnosis, no medicine."""

import re
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from graph.models import speak
from graph.parts import Parts
from graph.red_flags import INTERNATIONAL, crisis_line, emergency_number
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
    """What is said when `sign` is in the message; the first whose sign is there."""

    sign: re.Pattern[str]
    heard: str
    question: str


REPLIES = (
    Reply(
        re.compile(
            r"died|passed away|lost my|grie[fv]|broke up|left me|heartbroken|heart is broken|miss (?:him|her|my)"
        ),
        "I am so sorry. Losing someone, or something that was part of your life, can hurt in waves, "
        "and there is no right way to grieve.",
        "What would you like to tell me about it?",
    ),
    Reply(
        re.compile(r"scared|afraid|anxious|worried|frightened|terrified|panick|nervous"),
        "That sounds frightening, and it makes sense that it is hard to think of anything else. "
        "Fear often eases a little when it is shared and when the next small step is clear.",
        "What worries you most right now?",
    ),
    Reply(
        re.compile(r"lonely|alone|nobody|no one"),
        "That sounds lonely, and I am glad that you wrote it down here. "
        "Feeling alone is heavy, and it says nothing bad about you.",
        "Who has been a little easier to talk to than others?",
    ),
    Reply(
        re.compile(r"stress|exhausted|overwhelmed|burnt? out|can't cope|cannot cope|too much|any ?more"),
        "That sounds like a lot to carry for a long time. Being worn out by it is no weakness.",
        "Which part of it weighs most today?",
    ),
    Reply(
        re.compile(""),
        "Thank you for telling me. It sounds as if things are very heavy at the moment, and I am sorry that they are.",
        "What has been the hardest part of today?",
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
            fitting = fits(spoken.content)
            content = f"{spoken.content.strip()}\n\n{crisis_line(parts.region)}" if fitting else self._reviewed(state)
            spoken = spoken._replace(content=content)
        else:
            spoken = await speak(parts.reciter, [HumanMessage(self._reviewed(state))])
        answer = AIMessage(spoken.content, id=f"{state['turn_id']}:assistant", usage_metadata=spoken.usage)
        return {"messages": [answer], "citations": [], "abstained": False}

    def _reviewed(self, state: State) -> str:
        return reviewed(user_message(state), self._parts.region)


def fits(reply: str) -> bool:
    """Read before anyone sees it: a model that forgets itself, or its one question, is not shown."""
    return len(reply.split()) <= SUPPORT_MAX_WORDS and reply.count("?") == 1 and CLINICAL.search(reply) is None


def reviewed(message: str, region: str = INTERNATIONAL) -> str:
    """One of a few fixed texts; each says whom to call if it becomes too much."""
    plain = message.lower().replace("’", "'")
    reply = next(reply for reply in REPLIES if reply.sign.search(plain))
    return f"{reply.heard} {COMPANY}\n\n{reply.question}\n\n{crisis_line(region)} {WAY_ON}"
