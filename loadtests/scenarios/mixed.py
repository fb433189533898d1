"""Everything at once: of a hundred questions 70 are read, 15 resumed, 10 stopped and 5 asked twice."""

from loadtests.scenarios.cancel_storm import CancelStorm
from loadtests.scenarios.double_send import DoubleSend
from loadtests.scenarios.resume_storm import OtherReplica
from loadtests.scenarios.steady_chat import SteadyChat


class Mixed(SteadyChat, OtherReplica, CancelStorm, DoubleSend):
    pace_seconds = 4.5


# In the class's body they would be added to those of its parents.
Mixed.tasks = [
    *[SteadyChat.chat] * 70,
    *[OtherReplica.chat] * 15,
    *[CancelStorm.chat] * 10,
    *[DoubleSend.chat] * 5,
]
