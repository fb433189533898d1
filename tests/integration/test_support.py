"""A reply to distress as its readers get it: through a worker, into the log."""

import pytest

from graph.emotional_support import reviewed
from graph.red_flags import INTERNATIONAL, crisis_line
from tests.support.openai_wire import says, wire
from tests.support.workshop import content_of, workshop


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            ("That ", "sounds ", "hard. ", "What ", "helps?"),
            f"That sounds hard. What helps?\n\n{crisis_line(INTERNATIONAL)}",
        ),
        (("You ", "have ", "depression."), reviewed("I feel so lonely")),
    ],
)
async def test_a_models_support_is_one_token_however_many_it_wrote(
    database_url: str, words: tuple[str, ...], shown: str
) -> None:
    async with wire(says(*words)) as wired, workshop(database_url, wired) as shop:
        events = await shop.ended(await shop.ask("I feel so lonely"))
    assert [event.parse().content for event in events if event.type == "token"] == [shown]  # type: ignore[union-attr]
    assert content_of(events[-1]) == shown
    assert len(wired.calls) == 1
