"""What is said after an alarm belongs to it, until somebody asks for something else."""

import pytest

from graph.crisis import goes_on
from graph.red_flags import categories, emergency_text, find_flag, regions


def after(alarm: str, message: str, region: str = "us") -> str | None:
    return goes_on(emergency_text(alarm, region), message, find_flag(message))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("yes", "self_harm_confirmed"),
        ("yess", "self_harm_confirmed"),
        ("Yes, I have pills", "self_harm_confirmed"),
        ("I've got the pills here", "self_harm_confirmed"),
        ("she is", "self_harm_confirmed"),
        ("I don't know", "self_harm_confirmed"),
        ("tonight", "self_harm_confirmed"),
        ("I want to die", "self_harm_confirmed"),
        ("no", "self_harm_denied"),
        ("No, I'm safe", "self_harm_denied"),
        ("no, I meant my essay", "self_harm_denied"),
        ("please help me", "self_harm_talking"),
        ("there's no point talking", "self_harm_talking"),
        ("what should I do", "self_harm_talking"),
        ("why?", "self_harm_talking"),
        ("What helps with gout?", None),
        ("what are the symptoms of asthma", None),
    ],
)
def test_what_follows_on_self_harm_stays_with_it_unless_it_asks_for_something_else(
    message: str, text: str | None
) -> None:
    assert after("self_harm", message) == text
    assert goes_on("**Gout**", message, find_flag(message)) is None


def test_nobody_reads_the_same_text_twice_after_saying_yes() -> None:
    assert after("self_harm_confirmed", "yes") == "self_harm_talking"
    assert after("self_harm_talking", "i still want to die") == "self_harm_confirmed"


@pytest.mark.parametrize("message", ["thank you, the ambulance is here now", "ok", "yes", "I called them", "what now?"])
def test_after_an_alarm_a_short_answer_gets_a_short_answer(message: str) -> None:
    assert after("heart", message) == "alarm_followed"


def test_a_new_alarm_is_heard_after_an_old_one() -> None:
    assert after("heart", "now he can't breathe") is None
    assert after("self_harm", "my chest hurts badly and I am sweating") is None
    assert after("heart", "What helps with gout?") is None
    assert after("harm_by_others", "I can't leave him") == "harm_by_others_talking"


@pytest.mark.parametrize("region", regions())
def test_every_alarm_is_known_again_in_every_region(region: str) -> None:
    for category in categories():
        assert after(category, "ok", region) is not None
