"""Everything at once: of a hundred questions 70 are read, 15 resumed, 10 stopped and 5 asked twice."""

from loadtests.scenarios.cancel_storm import CancelStorm
from loadtests.scenarios.double_send import DoubleSend
from loadtests.scenarios.resume_storm import OtherReplica
from loadtests.scenarios.steady_chat import SteadyChat
from loadtests.scenarios.visitor import Visitor

SHARES: dict[type[Visitor], int] = {SteadyChat: 70, OtherReplica: 15, CancelStorm: 10, DoubleSend: 5}


class Mixed(SteadyChat, OtherReplica, CancelStorm, DoubleSend):
    pace_seconds = 4.5

    def chat(self, due: float) -> None:
        (kind,) = self.dice.choices(list(SHARES), list(SHARES.values()))
        kind.chat(self, due)
