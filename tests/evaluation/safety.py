"""What the red-flag rules make of the labelled messages."""

from typing import NamedTuple

from graph.red_flags import find_flag
from tests.evaluation.questions import Message, messages


class Judged(NamedTuple):
    message: Message
    found: str

    @property
    def missed(self) -> bool:
        return self.message.expected == "now" and self.found != "now"

    @property
    def false_alarm(self) -> bool:
        return self.message.expected != "now" and self.found == "now"


def judge() -> list[Judged]:
    return [Judged(message, _found(message.text)) for message in messages()]


def recall(judged: list[Judged]) -> float:
    alarms = [one for one in judged if one.message.expected == "now"]
    return sum(not one.missed for one in alarms) / len(alarms)


def precision(judged: list[Judged]) -> float:
    given = [one for one in judged if one.found == "now"]
    return sum(not one.false_alarm for one in given) / len(given)


def _found(text: str) -> str:
    flag = find_flag(text)
    return "nothing" if flag is None else "now" if flag.now else "topic"
