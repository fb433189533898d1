"""What the red-flag rules make of the labelled messages."""

from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

from graph.red_flags import find_flag
from tests.evaluation.questions import Message, held_out_messages, messages

Z = 1.96  # of a 95 % interval


class Judged(NamedTuple):
    message: Message
    found: str

    @property
    def missed(self) -> bool:
        return self.message.expected == "now" and self.found != "now"

    @property
    def false_alarm(self) -> bool:
        return self.message.expected != "now" and self.found == "now"


class Share(NamedTuple):
    """`low` and `high`: Wilson's interval, which holds for few and for extreme shares too."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of

    @property
    def interval(self) -> tuple[float, float]:
        share, n = self.value, self.of
        middle = share + Z * Z / (2 * n)
        reach = Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
        return (middle - reach) / (1 + Z * Z / n), (middle + reach) / (1 + Z * Z / n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits} of {self.of} = {self.value:.2f} ({low:.2f} to {high:.2f})"


def judge() -> list[Judged]:
    return _judged(messages())


def judge_held_out() -> list[Judged]:
    return _judged(held_out_messages())


def _judged(some: Iterable[Message]) -> list[Judged]:
    return [Judged(message, _found(message.text)) for message in some]


def recalled(judged: list[Judged]) -> Share:
    alarms = [one for one in judged if one.message.expected == "now"]
    return Share(sum(not one.missed for one in alarms), len(alarms))


def recall(judged: list[Judged]) -> float:
    return recalled(judged).value


def silenced(judged: list[Judged]) -> Share:
    """Of the alarms, those that get neither the text nor the line that says when to call."""
    alarms = [one for one in judged if one.message.expected == "now"]
    return Share(sum(one.found == "nothing" for one in alarms), len(alarms))


def precision(judged: list[Judged]) -> float:
    given = [one for one in judged if one.found == "now"]
    return sum(not one.false_alarm for one in given) / len(given)


def _found(text: str) -> str:
    flag = find_flag(text)
    return "nothing" if flag is None else "now" if flag.now else "topic"
