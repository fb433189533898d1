"""What a model is given of the conversation: partial answers too, replaced turns not (law 8)."""

from typing import Any

from graph.eventlog.log import Turn
from tests.support.openai_wire import breaks, hangs, refuses, says, wire
from tests.support.turns import OWNER
from tests.support.workshop import Workshop, code_of, workshop

QUESTION = "What helps against tiredness?"


async def checkpointed(shop: Workshop, turn: Turn) -> list[tuple[str, str]]:
    """The messages of the graph's own state."""
    graph = shop.worker._turns.served.graph
    state = await graph.aget_state({"configurable": {"thread_id": str(turn.session_id)}})
    kinds = {"human": "user", "ai": "assistant"}
    return [(kinds[message.type], message.text) for message in state.values["messages"]]


async def told(shop: Workshop, turn: Turn) -> list[tuple[str, str]]:
    """The messages that the log tells."""
    snapshot = await shop.log.snapshot(turn.session_id, OWNER)
    return [(message.role, message.content) for message in snapshot.messages if message.content]


async def test_a_stopped_and_a_failed_answer_are_in_the_next_turns_context(database_url: str) -> None:
    acts = (says("Iron."), hangs("Sleep", " and"), breaks("Walks", " in"), says("Tea."))
    async with wire(*acts) as wired, workshop(database_url, wired) as shop:
        first = await shop.ask(QUESTION)
        await shop.ended(first)
        stopped = await shop.ask("And at night?", first.session_id)
        await shop.said(stopped, "Sleep and")
        await shop.cancel(stopped)
        await shop.ended(stopped)
        failed = await shop.ask("And by day?", first.session_id)
        assert code_of((await shop.ended(failed))[-1]) == "model_unavailable"
        last = await shop.ask("And to drink?", first.session_id)
        await shop.ended(last)
        assert wired.calls[-1].said_to == [
            ("user", QUESTION),
            ("assistant", "Iron."),
            ("user", "And at night?"),
            ("assistant", "Sleep and"),
            ("user", "And by day?"),
            ("assistant", "Walks in"),
            ("user", "And to drink?"),
        ]
        assert await checkpointed(shop, last) == await told(shop, last)


async def test_a_replaced_turn_is_forgotten_however_it_ended(database_url: str) -> None:
    acts = (says("Iron."), says("Coffee."), breaks("Cof"), refuses(401), says("Tea."), says("Sleep."))
    async with wire(*acts) as wired, workshop(database_url, wired) as shop:
        first = await shop.ask(QUESTION)
        await shop.ended(first)
        replaced: Any = None
        for words in ("answered", "cut off", "refused"):
            turn = await shop.ask(words, first.session_id, replaces=replaced)
            await shop.ended(turn)
            replaced = turn.turn_id
        last = await shop.ask("And to drink?", first.session_id, replaces=replaced)
        await shop.ended(last)
        expected = [("user", QUESTION), ("assistant", "Iron."), ("user", "And to drink?")]
        assert wired.calls[-1].said_to == expected
        assert await checkpointed(shop, last) == await told(shop, last) == [*expected, ("assistant", "Tea.")]
        again = await shop.ask("Why?", first.session_id)
        await shop.ended(again)
        assert wired.calls[-1].said_to == [*expected, ("assistant", "Tea."), ("user", "Why?")]


async def test_a_turn_that_was_cancelled_before_its_claim_leaves_its_question_alone(database_url: str) -> None:
    async with wire(hangs(), says("Iron.")) as wired, workshop(database_url, wired, max_turns=1) as shop:
        other = await shop.ask()
        await wired.called()
        waiting = await shop.ask("Never answered")
        await shop.cancel(waiting)
        await shop.cancel(other)
        last = await shop.ask("Answered", waiting.session_id)
        await shop.ended(last)
        assert wired.calls[-1].said_to == [("user", "Never answered"), ("user", "Answered")]
        assert await checkpointed(shop, last) == await told(shop, last)
