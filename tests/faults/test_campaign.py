"""A short campaign in every run: each kind of fault once or more. `make faults` is the long one."""

import random

import pytest

from tests.conftest import Say
from tests.faults.campaign import campaign
from tests.faults.figures import summary

FAULTS, SECONDS, PEOPLE = 12, 8.0, 8


@pytest.mark.timeout(300)
async def test_no_fault_loses_repeats_or_changes_an_answer(say: Say) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    outcome = await campaign(seed, FAULTS, SECONDS, PEOPLE)
    again = f"python -m tests.faults.campaign --seed {seed} --faults {FAULTS} --seconds {SECONDS:g} --people {PEOPLE}"
    say(f"fault campaign, seed {seed}: {'; '.join(summary(outcome))}")
    assert not outcome.violations, "\n".join([again, *outcome.violations])
