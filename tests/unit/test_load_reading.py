"""What a load generator notices, and how it judges: it must see every fault that it is there for."""

import ast
import json
import random
import shlex
import subprocess
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from graph import parts
from loadtests import limits, load_report, run, targets
from loadtests.histogram import Histogram
from loadtests.limits import Verdict
from loadtests.results import Results
from loadtests.sse import STAGES, Parser, Reading

ROOT = Path(__file__).parents[2]
STAMP = "2026-11-24T10:00:00.000Z"


def _frame(seq: int, kind: str, **data: object) -> bytes:
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps({**data, 'timestamp': STAMP})}\n\n".encode()


def _answer(*pieces: str) -> list[bytes]:
    text = "".join(pieces)
    tokens = [_frame(n, "token", content=piece) for n, piece in enumerate(pieces, 3)]
    end = _frame(len(pieces) + 3, "done", message={"content": text})
    return [_frame(1, "turn_started"), _frame(2, "generation_start"), *tokens, end]


def _read(*frames: bytes) -> Reading:
    reading, parser = Reading("session", "turn", 0, time.time()), Parser()
    for frame in parser.feed(b"".join(frames)):
        reading.receive(frame, time.time())
    return reading


def test_a_whole_answer_is_not_wrong() -> None:
    reading = _read(b"retry: 500\nevent: ping\ndata: {}\n\n", *_answer("0:1700000000000000 ", "1:1700000000000000 "))
    assert reading.wrong == []
    assert (reading.end_type, reading.tokens, len(reading.token_lags)) == ("done", 2, 2)


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_a_lost_frame_is_noticed_wherever_it_was(lost: int) -> None:
    frames = _answer("a ", "b ", "c ")
    del frames[lost]
    assert any(sentence.startswith("lost") for sentence in _read(*frames).wrong)


def test_a_repeated_frame_a_second_end_and_another_text_are_noticed() -> None:
    frames = _answer("a ", "b ")
    assert any(s.startswith("repeated") for s in _read(*frames[:3], frames[2], *frames[3:]).wrong)
    assert any(s.startswith("repeated") for s in _read(*frames, _frame(6, "done", message={"content": "a b "})).wrong)
    assert any(s.startswith("text") for s in _read(*frames[:-1], _frame(5, "done", message={"content": "a c "})).wrong)


def test_whatever_comes_after_the_end_is_noticed() -> None:
    late = _read(*_answer("a "), _frame(5, "token", content="b "))
    assert late.wrong == ["repeated: token 5 after the end"]
    assert _read(*_answer("a "), b"event: ping\ndata: {}\n\n").wrong == []


@pytest.mark.parametrize(
    ("first", "then"), [("generation_start", "retrieval_start"), ("reranking_start", "retrieval_complete")]
)
def test_stages_in_another_order_are_noticed_though_they_came_in_one_piece(first: str, then: str) -> None:
    reading = Reading("session", "turn", 0, 100.0)
    frames = [_frame(1, first), _frame(2, then), _frame(3, "cancelled", content="")]
    for frame in Parser().feed(b"".join(frames)):
        reading.receive(frame, 100.5)
    assert reading.wrong == ["out of order: a stage was shown before the one that leads to it"]


def test_text_after_a_reset_counts_alone() -> None:
    frames = [_frame(1, "token", content="a "), _frame(2, "reset"), _frame(3, "token", content="b ")]
    reading = _read(*frames, _frame(4, "done", message={"content": "b "}))
    assert (reading.wrong, reading.resets) == ([], 1)


def test_a_resume_that_was_tried_twice_counts_from_the_first_try() -> None:
    reading = Reading("session", "turn", 0, time.time())
    reading.resuming(100.0)
    reading.resuming(116.0)
    (frame,) = Parser().feed(_frame(1, "token", content="a "))
    reading.receive(frame, 116.05)
    assert reading.resumed_first == reading.caught_up == pytest.approx(16_050)
    reading.resuming(120.0)
    assert reading.resumed_at == 120.0


def test_a_token_that_was_said_while_its_reader_was_away_has_no_lag() -> None:
    reading = Reading("session", "turn", 0, 100.0)
    frames = [_frame(n, "token", content=f"{n}:{said}000000 ") for n, said in enumerate((100, 102, 103, 105), 1)]
    here, away, opening, back = Parser().feed(b"".join(frames))
    (ping,) = Parser().feed(b"event: ping\ndata: {}\n\n")
    reading.receive(here, 100.5)
    reading.resuming(102.5)
    for frame, now in ((ping, 104.0), (away, 104.1), (opening, 104.2), (back, 105.25)):
        reading.receive(frame, now)
    assert reading.token_lags == [500, 250]
    assert reading.tokens == 4


async def test_each_stages_lag_begins_in_the_model_and_not_at_the_frames_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's clock shows 100, 101, 102, 103 s at the two stages' begins and ends; each frame comes at 110."""
    clock = iter(range(100, 104))
    monkeypatch.setattr(parts, "time", SimpleNamespace(time_ns=lambda: next(clock) * 10**9))
    search, rerank = parts._scripted(0, stamp=True)
    sources = (await rerank("", (await search("")).passages)).sources
    reading = Reading("session", "turn", 0, 90.0)
    frames = [
        _frame(n, stage, **({"sources": sources} if stage == "reranking_complete" else {}))
        for n, stage in enumerate(STAGES, 1)
    ]
    for frame in Parser().feed(b"".join(frames)):
        reading.receive(frame, 110.0)
    began, ended, reranking_began, reranking_ended, generation_began = (reading.stage_lags()[s] for s in STAGES)
    assert (began, ended, reranking_began, reranking_ended) == (10_000, 9000, 8000, 7000)
    assert generation_began == reranking_ended


def test_frames_are_the_same_however_the_bytes_are_cut() -> None:
    whole, dice = b"".join(_answer("a ", "b ", "c ")), random.Random(7)
    once = list(Parser().feed(whole))
    for _ in range(50):
        parser, cut = Parser(), sorted(dice.choices(range(len(whole)), k=5))
        pieces = [whole[start:end] for start, end in zip([0, *cut], [*cut, len(whole)], strict=True)]
        assert [frame for piece in pieces for frame in parser.feed(piece)] == once


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="no frame"):
        list(Parser().feed(b"id: 1\ndata: {}\n\n"))


def test_percentiles_are_within_one_percent_and_add_up_over_workers() -> None:
    values = [1.5**n / 100 for n in range(40)]
    halves = Results(), Results()
    for n, value in enumerate(values):
        halves[n % 2].add("lag_ms", value)
    total = Results()
    for half in halves:
        total.merge(json.loads(json.dumps(half.dump())))
    histogram = total.histogram("lag_ms")
    for percent in (10, 50, 95, 100):
        exact = sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.01)
    assert histogram.count == 40
    assert Histogram().summary() == {"count": 0}


LIMITS = {
    "generator": {"lag_ms": {"p99": 20}, "cpu_percent": {"p95": 80}},
    "every": {"violations": {"most": 0}},
    "chat": {"first_token_ms": {"p95": 250}, "success_percent": {"least": 100}},
}


def _verdict(
    lag: float = 1, cpu: float = 50, violations: int = 0, success: float = 100, **first_token: float
) -> Verdict:
    metrics: limits.Metrics = {
        "generator_lag_ms": {"p99": lag},
        "generator_cpu_percent": {"p95": cpu},
        "violations": {"value": violations},
        "success_percent": {"value": success},
        "first_token_ms": first_token,
    }
    rows = limits.compare(LIMITS, "chat", 5, metrics)
    return limits.verdict(rows, limits.compare_generator(LIMITS, "chat", metrics))


def test_a_run_passes_only_when_every_limit_was_measured_and_kept() -> None:
    assert _verdict(p95=250) == Verdict.PASSED
    assert _verdict(p95=251) == Verdict.MISSED
    assert _verdict(p95=10, success=99.9) == Verdict.MISSED
    assert _verdict() == Verdict.MISSED


def test_a_busy_generator_makes_a_run_invalid_but_excuses_no_loss() -> None:
    assert _verdict(p95=10, lag=21) == Verdict.INVALID
    assert _verdict(p95=999, lag=21) == Verdict.INVALID
    assert _verdict(p95=10, cpu=81) == Verdict.INVALID
    assert _verdict(p95=10, lag=21, violations=1) == Verdict.MISSED


def test_a_run_that_cannot_be_believed_hides_no_other_that_missed_a_limit() -> None:
    missed, invalid, passed = Verdict.MISSED, Verdict.INVALID, Verdict.PASSED
    assert limits.whole([invalid, missed, passed]) == missed
    assert limits.whole([passed, invalid]) == invalid
    assert limits.whole([passed, passed]) == passed


def _outcome(found: float, lag: float) -> run.Outcome:
    """Of a run that may take 250 ms, and whose load generator 20."""
    outcome = run.Outcome(run.RUNS[0], Results(), [], 0.5, 0.0, Histogram())
    outcome.rows = [limits.Row("steady_chat", "first_token_ms", "p95", 250, found)]
    outcome.generator = [limits.Row("steady_chat", "generator_lag_ms", "p99", 20, lag)]
    return outcome


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ([(250, 20)], 0),
        ([(251, 20)], 1),
        ([(250, 21)], 3),
        ([(251, 21)], 3),
        ([(250, 20), (250, 21)], 3),
        ([(250, 21), (251, 20)], 1),
        ([(251, 20), (250, 21)], 1),
        ([(251, 21), (250, 20)], 3),
    ],
)
def test_the_exit_status_is_the_verdict_run_by_run(
    runs: list[tuple[float, float]], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [_outcome(*found_and_lag) for found_and_lag in runs]

    async def measured(*_: object) -> list[run.Outcome]:
        return outcomes

    monkeypatch.setattr(run, "run_all", measured)
    assert run.main(["--out", str(tmp_path)]) == status
    believed = [lag <= 20 for _, lag in runs]
    assert [seen.valid for seen in load_report.seen(outcomes)] == believed
    assert [one["valid"] for one in json.loads((tmp_path / "load.json").read_text())["runs"]] == believed


def test_make_load_hands_on_who_is_to_do_what_where() -> None:
    given = ["USERS=7", "SCENARIO=mixed steady_chat", "HOST=http://a,http://b", "LOAD=--seconds 9"]
    command = ["make", "--dry-run", "--no-print-directory", "load", *given]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    _, arguments = made.stdout.replace("\\\n", " ").split("-m loadtests.run ")
    options = run.parse(shlex.split(arguments))
    assert (options.users, options.seconds, options.host) == (7, 9, "http://a,http://b")
    assert options.scenario == ["mixed", "steady_chat"]
    chosen = [(one.scenario, one.users, one.seconds) for one in run.chosen_runs(options)]
    assert chosen == [("steady_chat", 7, 9), ("mixed", 7, 9)]


def test_every_limit_of_slo_toml_is_of_a_scenario_that_runs() -> None:
    sizes = {limits.sized(one.scenario, one.users) for one in run.RUNS}
    assert set(limits.load()) - {"generator", "good_turn", "every"} <= {*run.SCENARIOS, *sizes}


def test_the_offline_default_keeps_more_with_ten_people_than_with_a_hundred() -> None:
    metrics: limits.Metrics = {"first_token_ms": {"p95": 1200}, "search_ms": {"p95": 400}}
    kept = {
        (users, row.metric): row.kept
        for users in (10, 100)
        for row in limits.compare(limits.load(), "extractive", users, metrics)
        if row.metric in metrics
    }
    assert kept == {
        (10, "first_token_ms"): False,
        (10, "search_ms"): True,
        (100, "first_token_ms"): True,
        (100, "search_ms"): True,
    }


def test_what_warms_the_replicas_up_leaves_no_heap_in_which_a_leak_of_idle_tabs_could_hide() -> None:
    (tabs,) = (one for one in run.RUNS if one.scenario == "idle_tabs")
    assert tabs.warm_up <= tabs.users / 4
    assert {settings["MODEL"].partition("&")[0] for settings in tabs.replicas.values()} == {"scripted?tokens=1"}


def _steady(users: int, success: float = 100) -> targets.Seen:
    metrics = {
        "first_token_ms": {"p50": 400.0, "p95": 900.0, "max": 2100.0},
        "first_event_ms": {"p50": 10.0},
        "token_lag_ms": {"p99": 70.0},
        "success_percent": {"value": success},
    }
    return targets.Seen("steady_chat", users, metrics)


def test_the_plans_targets_are_marked_where_they_are_missed_or_were_not_measured() -> None:
    runs = [_steady(10), _steady(100, success=99.96), targets.Seen("blocking", 10, {"blocking_ms": {"p50": 1000.0}})]
    found = {str(row[0]): (*row[2:4], row[-1], marked) for row, marked in targets.rows(runs)}
    assert found["first token"] == ("900 ms", "900 ms", "met", False)
    assert found["question → first token, all"] == ("2,100 ms", "2,100 ms", "NOT MET", True)
    assert found["success"] == ("100.0 %", "99.9 %", "met", False)
    assert found["first visible content sooner than blocking"] == ("60.0 %", "not measured", "NOT MET", True)
    assert found["token said → on screen, both added"] == ("not measured", "not measured", "not measured", True)
    assert found["retrieval and reranking"] == ("not measured", "not measured", "not measured", True)
    assert found["frame received → on screen"] == ("", "", "not measured", True)
    seen = targets.Seen("page", 1, {"shown_ms": {"p95": 31.0}})
    added = {str(row[0]): (row[2], row[-1]) for row, _ in targets.rows([*runs, seen])}
    assert added["token said → on screen, both added"] == ("101 ms", "NOT MET")
    doubted = {str(row[0]): (row[-1], marked) for row, marked in targets.rows([runs[0], runs[1]._replace(valid=False)])}
    assert doubted["first token"] == (targets.INVALID, True), "what measured itself meets nothing"
    every = [_steady(users)._replace(valid=users == 10) for users in (10, 100)]
    every += [targets.Seen("blocking", users, {"blocking_ms": {"p50": 9000.0}}) for users in (10, 100)]
    every += [targets.Seen("page", 1, {"shown_ms": {"p95": 3.0}})]
    derived = {str(row[0]): (row[-1], marked) for row, marked in targets.rows(every)}
    assert derived["first visible content sooner than blocking"] == (targets.INVALID, True)
    assert derived["token said → on screen, both added"] == (targets.INVALID, True)
    only_ten = {str(row[0]): (row[3], row[-1], marked) for row, marked in targets.rows(runs[:1])}
    assert only_ten["first token"] == ("not measured", "not measured", True)


def _leave_all_targets_met(folder: Path, first: dict[str, str], second: dict[str, str], *, valid: bool = True) -> bool:
    runs = [
        {
            "scenario": target.scenario,
            "users": users,
            "metrics": {target.metric: {target.stat: target.limit}},
            "valid": valid,
        }
        for target in targets.TARGETS
        for users in target.sizes or (1,)
    ]
    for name, place, half in (("bench", first, runs[::2]), ("load", second, runs[1::2])):
        (folder / f"{name}.json").write_text(json.dumps({**place, "runs": half}))
    return targets.show(folder, Console(quiet=True))


def test_targets_that_were_measured_at_two_commits_or_hosts_are_not_met(tmp_path: Path) -> None:
    here = {"commit": "425e3e6", "machine": "Linux"}
    assert _leave_all_targets_met(tmp_path, here, here)
    assert not _leave_all_targets_met(tmp_path, here, here | {"commit": "17a9df2"})
    assert not _leave_all_targets_met(tmp_path, here, here | {"host": "https://chat.example.org"})
    assert not _leave_all_targets_met(tmp_path, here, here, valid=False)


@cache
def _every_call() -> list[ast.Call]:
    trees = [ast.parse(file.read_text()) for file in Path(limits.__file__).parent.rglob("*.py")]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _calls(attribute: str) -> list[ast.Call]:
    return [one for one in _every_call() if isinstance(one.func, ast.Attribute) and one.func.attr == attribute]


def test_a_request_stands_in_the_load_tests_tables_by_a_name_that_is_a_constant() -> None:
    """By its address otherwise, and an address, a query or a name that is put together may hold what somebody wrote."""
    asked = [call for call in _calls("request") if ast.unparse(call.func) == "self.request"]
    tailed = [call for call in _calls("get") if ast.unparse(call.func) == "self.client.get"]
    for call in asked + tailed:
        names = [keyword.value for keyword in call.keywords if keyword.arg == "name"]
        assert [type(name) for name in names] == [ast.Constant], ast.unparse(call)
    assert len(asked) >= 5
    assert len(tailed) >= 1
    others = [ast.unparse(call.func) for verb in ("post", "put", "patch", "delete") for call in _calls(verb)]
    assert not [name for name in others if name.startswith("self.client.")], "each goes through `request`"
