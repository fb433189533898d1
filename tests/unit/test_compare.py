"""The price of durability is of whole turns, with what a start costs; a reader that was too busy tells nothing."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from loadtests.compare import __main__ as compare
from loadtests.compare.claims import claims
from loadtests.compare.client import Seen, Way
from loadtests.compare.contestants import BEST, DURABLE, VOLATILE, Contestant, Load, Measured, Sample, rate

TOKENS, START_CPU_SECONDS = 10, 0.02


class DearStarts:
    """Answers that cost nothing but their start; the "server" is this process."""

    async def ask_on(self, seen: Seen, more: Callable[[], bool]) -> None:
        while more():
            seen.begin()
            end = time.process_time() + START_CPU_SECONDS
            while time.process_time() < end:
                pass
            if seen.watched:
                seen.first_token.add(1000 * START_CPU_SECONDS)
                seen.lag.add(1)
            seen.tokens += TOKENS
            seen.turns += 1


async def test_the_starts_of_all_turns_are_paid_for_by_their_tokens() -> None:
    here = psutil.Process()
    way = cast(Way, DearStarts())
    one = Contestant("here", [], way, here, "")
    measured = await one.measure(3, Load(answers=2, seconds=0, spread=0))
    assert measured.cpu_postgres >= 0.8e6 * START_CPU_SECONDS / TOKENS
    assert measured.first_token_p50 == pytest.approx(1000 * START_CPU_SECONDS, rel=0.01)


def test_the_rate_is_of_the_middle_in_which_all_ask() -> None:
    ramp = [Sample(n, n, 0) for n in range(10)]
    steady = [Sample(10 + n, 10 + 100 * n, 0) for n in range(11)]
    last_one = [Sample(21 + n, 1010 + n, 0) for n in range(10)]
    assert rate([*ramp, *steady, *last_one]) == pytest.approx(100, rel=0.01)
    assert rate([Sample(0, 0, 0), Sample(2, 50, 0)]) == 25


def _measured(tokens_a_second: float, cpu: float, client: float = 10) -> Measured:
    figures: dict[str, Any] = dict.fromkeys(Measured.__dataclass_fields__, 1.0)
    return Measured(**figures | {"tokens_a_second": tokens_a_second, "cpu": cpu, "client_cpu_percent": client})


def test_an_aim_of_which_no_row_can_be_believed_is_missed() -> None:
    busy = {(10, way): _measured(100, 1, client=81) for way in (VOLATILE, DURABLE)}
    assert [claim.missed for claim in claims({"saturated": busy})] == [True, True]


def test_a_round_whose_reader_was_too_busy_counts_only_where_all_were() -> None:
    busy, calm = _measured(900, 1, client=99), _measured(100, 9)
    assert compare.middle([busy, calm]) == calm
    assert not compare.middle([busy, busy]).valid


@pytest.mark.parametrize(("client", "status"), [(80, 0), (81, 1)])
def test_a_comparison_without_a_row_that_can_be_believed_does_not_exit_0(
    client: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measured(*_: object) -> dict[tuple[int, str], list[Measured]]:
        return {(10, way): [_measured(100, 1, client)] for way in (VOLATILE, DURABLE)}

    monkeypatch.setattr(compare, "measure_all", measured)
    monkeypatch.setattr(sys, "argv", ["compare", "--out", str(tmp_path)])
    assert compare.main() == status


def test_each_way_is_taken_at_its_best_and_a_busy_reader_is_passed_over() -> None:
    found = {
        (10, VOLATILE): _measured(100, 9),
        (99, VOLATILE): _measured(50, 19),
        (10, DURABLE): _measured(80, 14),
        (99, DURABLE): _measured(120, 11),
        (500, DURABLE): _measured(900, 1, client=81),
        (10, BEST): _measured(200, 4),
    }
    told = {(c.what, round(c.ratio, 2), c.aim, c.missed) for c in claims({"saturated": found})}
    assert told == {
        ("tokens/s ÷ volatile", 1.2, "≥ 1", False),
        ("CPU µs/token ÷ volatile", 1.2, "≤ 1", True),
        ("tokens/s ÷ volatile, best", 0.6, "", False),
        ("CPU µs/token ÷ volatile, best", 2.4, "", False),
    }
