"""What follows on an alarm: its conversation goes on until somebody asks for something else."""

from functools import cache

from graph.red_flags import Flag, categories, emergency_text, hear, regions

OPENING_CHARACTERS = 60  # by which a text is known again
CONFIRMED, DENIED, TALKING = "self_harm_confirmed", "self_harm_denied", "self_harm_talking"
VIOLENCE_TALKING, FOLLOWED = "harm_by_others_talking", "alarm_followed"
FOLLOWING = (CONFIRMED, DENIED, TALKING, VIOLENCE_TALKING, FOLLOWED)
QUESTION_WORDS = 3  # "why?" and "how so?" ask for no article
ANSWER_WORDS = {"self_harm": 60, "harm_by_others": 60, FOLLOWED: 6}
SHORT_WORDS = 12


def goes_on(before: str, message: str, flag: Flag | None) -> str | None:
    """The text for `message` after the answer `before`, when that was an alarm's and this belongs to it; else None."""
    alarm = alarm_of(before)
    if alarm is None or not message.strip():
        return None
    about = "self_harm" if alarm.startswith("self_harm") else alarm.removesuffix("_talking")
    repeated = flag is not None and flag.now
    if flag is not None and flag.now and (flag.category != about or alarm == about != "self_harm"):
        return None
    if not repeated and (_informs(message) or len(message.split()) > ANSWER_WORDS.get(about, SHORT_WORDS)):
        return None
    if about == "self_harm":
        return _after_self_harm(alarm, message, repeated)
    return VIOLENCE_TALKING if about == "harm_by_others" else FOLLOWED


def _after_self_harm(alarm: str, message: str, repeated: bool) -> str:
    """Nobody wants to read the same text again."""
    if repeated or hear(message, "danger") or 0 in hear(message, "yes"):
        return CONFIRMED if alarm != CONFIRMED else TALKING
    return DENIED if 0 in hear(message, "no") else TALKING


def _informs(message: str) -> bool:
    """Whether this asks for information, so that the conversation is about something else now."""
    asks = len(message.split()) >= QUESTION_WORDS and hear(message, "asks")
    return bool(asks) and not hear(message, "comfort")


def alarm_of(text: str) -> str | None:
    """Whose text this is, when it is an alarm's or one that follows on an alarm."""
    return _openings().get(text[:OPENING_CHARACTERS])


@cache
def _openings() -> dict[str, str]:
    keys = (*categories(), *FOLLOWING)
    return {emergency_text(key, region)[:OPENING_CHARACTERS]: key for region in regions() for key in keys}
