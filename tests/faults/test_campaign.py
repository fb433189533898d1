"""A short campaign in every run: each kind of fault once or more. `make faults` is the long one."""

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.conftest import Say
from tests.faults.campaign import campaign
from tests.faults.figures import summary
from tests.faults.schedule import Schedule

SIZES = {"scripted": (12, 8.0, 8), "medical": (10, 6.0, 4)}  # faults, seconds, people


@pytest.mark.timeout(300)
@pytest.mark.parametrize("graph", SIZES)
async def test_no_fault_loses_repeats_or_changes_an_answer(say: Say, graph: str) -> None:
    """The medical graph's stages really search and rank: one that had finished is never said, or done, again."""
    seed = random.SystemRandom().randrange(1_000_000)
    faults, seconds, people = SIZES[graph]
    outcome = await campaign(seed, faults, seconds, people, graph)
    again = f"--seed {seed} --faults {faults} --seconds {seconds:g} --people {people} --graph {graph}"
    say(f"fault campaign, {graph}, seed {seed}: {'; '.join(summary(outcome))}")
    assert not outcome.violations, "\n".join([f"python -m tests.faults.campaign {again}", *outcome.violations])


class _NeverReady:
    name, kind, busy = "serve-1", "serve", False

    def kill(self) -> None: ...
    def launch(self) -> None: ...

    async def ready(self) -> None:
        raise AssertionError("serve-1 did not start")


@pytest.mark.timeout(20)
async def test_a_campaign_ends_although_a_member_does_not_come_back() -> None:
    fleet = SimpleNamespace(members=[_NeverReady(), _NeverReady()])
    schedule = Schedule(cast(Any, fleet), cast(Any, None), 7, 2.0)
    schedule._acts = dict.fromkeys(schedule._acts, schedule._kill)
    await schedule.run(count=4, seconds=0.01)
    assert len(schedule.wrong) == 4
