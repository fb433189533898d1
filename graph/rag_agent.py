"""Answers from the library: retrieve → rerank → generate with citations, or say that nothing there fits."""

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from graph.citations import SOURCES, citations
from graph.emotional_support import WARM_OPENING
from graph.languages import language, only_english
from graph.leaning import SMALL_TALK, of_causes, without_filler
from graph.models import Spoken, speak
from graph.parts import Parts
from graph.quotes import EVIDENCE, FOLLOW_UP, QUESTION, SAID
from graph.red_flags import emergency_number, topic_line
from graph.retrieval.spelling import differing
from graph.state import State, recent, user_message

FIT_NEEDED = 0.565  # chosen in docs/decisions/0007-when-to-abstain.md
NEAREST_TOPICS = 3
NEAR_FROM_FIT = 0.4  # below, the question is about something else altogether
PROMPT = """You give general health information on a public page, in plain words, in the language of the question.
Use only the numbered passages below. Put the number of its passage, as in [2], after every sentence that uses one.
If the passages do not answer the question, say so in one sentence and add nothing from elsewhere.
Repeat a dose or another number only exactly as a passage gives it. Never diagnose, and never advise to start, stop or
change a medicine: for that the person should ask a doctor or a pharmacist. Be brief: at most 200 words, Markdown.

Passages:
{passages}"""
NOTHING_FITS = (
    "I found nothing in the articles here that answers this well enough, so I would rather not guess. "
    "A doctor or a pharmacist can help you further."
)
READ_AS = "I read {words}.\n\n"
IN_DANGER = "If someone may be in danger, do not wait for an article: call {number}."
GREETED = "You are welcome here. I answer general health questions from the articles in this library. What is yours?"
NOTHING_THERE = "There are no articles here yet, so I can't answer from them. A doctor or a pharmacist can help you."


class RagAgent:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def retrieve(self, state: State) -> dict[str, Any]:
        found = await self._parts.search(state["question"])
        return {
            "passages": found.passages,
            "retrieval_degraded": found.degraded,
            "library_empty": found.library_empty,
            "read_as": found.read_as or state["question"],
        }

    async def rerank(self, state: State) -> dict[str, Any]:
        """By what is meant; but how well it fits is judged by what was said too, for "what causes …?" is near to the
        causes of anything."""
        said = _read_as(state)
        meant = of_causes(said)
        ranked = await self._parts.rerank(meant, state["passages"])
        fit = ranked.fit
        if meant != said and fit is not None:
            fit = min(fit, (await self._parts.rerank(said, state["passages"])).fit or 0)
        return {
            "sources": ranked.sources,
            "evidence": ranked.evidence,
            "fit": fit,
            "reranking_degraded": ranked.degraded,
        }

    async def generate(self, state: State) -> dict[str, Any]:
        """Whether the sources are good enough is decided here, in code; a model is asked only when they are."""
        weak = not state["sources"] or (state["fit"] is not None and state["fit"] < FIT_NEEDED)
        abstained = weak or foreign(state) is not None
        opening = await self._recite(self._opening(state, abstained))
        body = await (self._recite(abstention(state, self._parts.region)) if abstained else self._answer(state))
        content = opening.content + body.content
        answer = AIMessage(content, id=f"{state['turn_id']}:assistant", usage_metadata=body.usage)
        cited = citations(content, state["sources"])
        return {"messages": [answer], "citations": cited, "abstained": abstained}

    async def _answer(self, state: State) -> Spoken:
        return await speak(self._parts.model, prompt(state, self._parts.history_tokens))

    async def _recite(self, text: str) -> Spoken:
        return await speak(self._parts.reciter, [HumanMessage(text)]) if text else Spoken("", None)

    def _opening(self, state: State, abstained: bool) -> str:
        topic = state["urgent_topic"]
        when_to_call = f"{topic_line(topic, self._parts.region)}\n\n" if topic else ""
        mended = "" if foreign(state) else differing(state["question"], _read_as(state))
        read_as = READ_AS.format(words=mended) if mended else ""
        return when_to_call + read_as + (WARM_OPENING if state["warm"] and not abstained else "")


def _read_as(state: State) -> str:
    """A turn that a worker of an older version began has none."""
    return state.get("read_as") or state["question"]


def prompt(state: State, history_tokens: int) -> list[BaseMessage]:
    """Numbered passages for a model that reads; the same as data for one that quotes."""
    passages = "\n\n".join(f"[{n}] {s['title']}\n{s['text']}" for n, s in enumerate(state["sources"], start=1))
    asked = user_message(state)
    added = without_filler(asked)
    extra = {
        SOURCES: state["sources"],
        EVIDENCE: state["evidence"],
        QUESTION: _read_as(state),
        FOLLOW_UP: added if added != state["question"] and state["question"].endswith(added) else "",
        SAID: "\n".join(message.text for message in state["messages"] if isinstance(message, AIMessage)),
    }
    return [
        SystemMessage(PROMPT.format(passages=passages)),
        *(recent(state["messages"][:-1], history_tokens) if history_tokens else []),
        HumanMessage(asked, additional_kwargs=extra),
    ]


def foreign(state: State) -> str | None:
    """The message's language, when that is neither English nor the articles': however near they seem, nobody knows what
    it asks of them."""
    spoken = language(user_message(state))
    if spoken is None or (state["sources"] and language(state["sources"][0]["text"]) == spoken):
        return None
    return spoken


def abstention(state: State, region: str) -> str:
    sources, fit = state["sources"], state["fit"]
    spoken = foreign(state)
    if spoken:
        return only_english(spoken, region)
    if SMALL_TALK.fullmatch(user_message(state)):
        return GREETED
    if state["library_empty"]:
        return NOTHING_THERE
    if not sources or (fit is not None and fit < NEAR_FROM_FIT):
        return f"{NOTHING_FITS} {IN_DANGER.format(number=emergency_number(region))}"
    topics = list(dict.fromkeys(source["title"].split(": ")[0] for source in sources))[:NEAREST_TOPICS]
    return f"{NOTHING_FITS}\n\nThe nearest topics here are: {', '.join(topics)}."
