"""`make load`: runs the scenarios against replicas on this machine or at HOST, compares with slo.toml, writes a report.

Exit status: 0 every limit kept, 1 one missed, 2 a script failed, 3 the load generator was too busy to be believed.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from loadtests import limits, load_report, targets
from loadtests.fleet import Balancer, Fleet, cpu_seconds, fleet, resident_kb
from loadtests.limits import Limits, Row, Verdict
from loadtests.results import Results
from tests.support.folder import temporary_folder

OUT = Path(".cache/load")
LOCUSTFILE = Path(__file__).parent / "locustfile.py"
MODEL = "scripted?tokens=100&delay_ms=40&stage_ms=0&stamp=1"
SAMPLE_SECONDS = 0.5
STOP_SECONDS = 60  # a turn under way is read to its end
WARM_UP_SECONDS = 6
PAIR: dict[str, dict[str, str]] = {"a": {}, "b": {}}
STRICT = {"strict": {"TURN_TIMEOUT_SECONDS": "1"}}

Fault = Callable[[Fleet, float], Coroutine[None, None, None]]


async def kill_one_after_the_other(replicas: Fleet, seconds: float) -> None:
    """kill -9, and a start a second later, twice."""
    for replica in replicas.replicas:
        await asyncio.sleep(seconds / 4)
        replica.kill()
        await asyncio.sleep(1)
        replica.launch()
        await asyncio.to_thread(replica.ready)


@dataclass(frozen=True)
class Run:
    """`classes` are of the locustfile; `fault` is what befalls the replicas meanwhile."""

    scenario: str
    classes: tuple[str, ...]
    users: int
    seconds: float
    fault: Fault | None = None
    replicas: dict[str, dict[str, str]] = field(default_factory=lambda: PAIR)

    @property
    def elsewhere(self) -> bool:
        """Whether it makes sense against replicas that are not ours."""
        return self.fault is None and self.replicas is PAIR


RUNS = (
    Run("steady_chat", ("SteadyChat",), 10, 15),
    Run("steady_chat", ("SteadyChat",), 100, 25),
    Run("blocking", ("Blocking",), 10, 12),
    Run("burst", ("Burst",), 10, 17),
    Run("burst", ("Burst",), 100, 25),
    Run("resume_storm", ("ResumeStorm",), 100, 20),
    Run("other_replica", ("OtherReplica",), 60, 20),
    Run("replica_kill", ("ReplicaKill",), 30, 30, kill_one_after_the_other),
    Run("cancel_storm", ("CancelStorm",), 50, 15),
    Run("slow_client", ("SteadyChat", "SteadyChat", "SlowClient"), 45, 20),
    Run("double_send", ("DoubleSend",), 40, 15),
    Run("idle_tabs", ("IdleTabs",), 100, 25),
    Run("errors", ("Errors",), 10, 10, None, STRICT),
    Run("mixed", ("Mixed",), 60, 25),
)
SCENARIOS = tuple(dict.fromkeys(run.scenario for run in RUNS))


@dataclass
class Outcome:
    """Of one run. `samples`: each (seconds since 1970, {series: value}); CPU in percent of a core, memory in MB."""

    run: Run
    results: Results
    samples: list[tuple[float, dict[str, float]]]
    load_average: float
    began: float
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    generator: list[Row] = field(default_factory=list)


class ScriptError(Exception):
    """Locust did not come to its end."""


async def locust(run: Run, host: str, replicas: list[str], options: argparse.Namespace) -> Results:
    with tempfile.TemporaryDirectory() as place:
        found = Path(place) / "results.json"
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        command += ["--host", host, "--replicas", ",".join(replicas), "--results", str(found)]
        command += ["-u", str(run.users), "-r", str(max(run.users, 1)), "-t", f"{round(run.seconds)}s"]
        command += ["-s", str(STOP_SECONDS), "--loglevel", "WARNING"]
        if options.expect_workers:
            command += ["--master", "--expect-workers", str(options.expect_workers)]
        elif options.processes > 1:
            command += ["--processes", str(options.processes)]
        process = await asyncio.create_subprocess_exec(
            *command, *dict.fromkeys(run.classes), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        if process.returncode or not found.exists():
            raise ScriptError(f"{run.scenario}: locust ended with {process.returncode}\n{said.decode()}")
        results = Results()
        results.merge(json.loads(found.read_text()))
        return results


@asynccontextmanager
async def sampling(replicas: Fleet | None) -> AsyncIterator[list[tuple[float, dict[str, float]]]]:
    """CPU and memory of the replicas, Postgres and the balancer, while it is open."""
    samples: list[tuple[float, dict[str, float]]] = []
    task = asyncio.create_task(_sample(replicas, samples))
    try:
        yield samples
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _sample(replicas: Fleet | None, samples: list[tuple[float, dict[str, float]]]) -> None:
    last: dict[str, float] = {}
    at = time.monotonic()
    while replicas is not None:
        used = {"Postgres": cpu_seconds(replicas.postgres), "balancer": time.process_time()}
        values = {}
        for replica in replicas.replicas:
            if psutil.pid_exists(replica.process.pid) and replica.process.poll() is None:
                process = psutil.Process(replica.process.pid)
                used[f"replica {replica.name}"] = cpu_seconds(process)
                values[f"replica {replica.name} MB"] = resident_kb(process) / 1024
        now = time.monotonic()
        for name, seconds in used.items():
            if name in last and seconds >= last[name]:
                values[name] = 100 * (seconds - last[name]) / (now - at)
        samples.append((time.time(), values))
        last, at = used, now
        await asyncio.sleep(SAMPLE_SECONDS)


def measured(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Every metric of the run; shares in percent."""
    results, counts = outcome.results, outcome.results.counts
    metrics = {metric: results.histogram(metric).summary() for metric in sorted(results.latencies)}
    metrics |= {name: {"value": counts[name]} for name in ("violations", "failed", "reconnects", *sorted(counts))}
    if counts["turns"]:
        metrics["success_percent"] = {"value": 100 * counts["whole"] / counts["turns"]}
    if counts["watched"]:
        metrics["goodput_percent"] = {"value": 100 * counts["good"] / counts["watched"]}
    memory = [sum(v for k, v in values.items() if k.endswith(" MB")) for _, values in outcome.samples]
    if memory:
        metrics["memory_kb_a_user"] = {"value": max(0.0, 1024 * (max(memory) - memory[0]) / outcome.run.users)}
    return metrics


async def measure(run: Run, options: argparse.Namespace, chosen: Limits, replicas: Fleet | None) -> Outcome:
    balancer = Balancer(*(replica.address for replica in replicas.replicas)) if replicas else None
    urls = [replica.url for replica in replicas.replicas] if replicas else options.host.split(",")[1:]
    if balancer is not None:
        await balancer.restore()
    began = time.time()
    host = f"http://{balancer.address}" if balancer else options.host.split(",")[0]
    try:
        async with sampling(replicas) as samples:
            fault = asyncio.create_task(run.fault(replicas, run.seconds)) if run.fault and replicas else None
            results = await locust(run, host, urls, options)
            if fault is not None:
                await fault
    finally:
        if balancer is not None:
            balancer.close()
    outcome = Outcome(run, results, samples, os.getloadavg()[0], began)
    outcome.metrics = measured(outcome)
    rows = limits.compare(chosen, run.scenario, outcome.metrics)
    outcome.rows = [row for row in rows if replicas or not row.metric.startswith("memory")]
    outcome.generator = limits.compare_generator(chosen, run.scenario, outcome.metrics)
    return outcome


def chosen_runs(options: argparse.Namespace) -> list[Run]:
    runs = [run for run in RUNS if run.scenario in (options.scenario or SCENARIOS)]
    if options.host:
        runs = [run for run in runs if run.elsewhere]
    if options.users:  # one size each
        runs = list({run.scenario: Run(**{**vars(run), "users": options.users}) for run in runs}.values())
    if options.seconds:
        runs = [Run(**{**vars(run), "seconds": options.seconds}) for run in runs]
    return runs


async def run_all(options: argparse.Namespace, chosen: Limits, console: Console) -> list[Outcome]:
    outcomes, opened = [], ExitStack()
    with opened:
        replicas: Fleet | None = None
        kind: dict[str, dict[str, str]] | None = None
        for run in chosen_runs(options):
            if not options.host and run.replicas is not kind:
                opened.close()
                kind = run.replicas
                named = {name: {"MODEL": options.model, **settings} for name, settings in kind.items()}
                replicas = opened.enter_context(fleet(opened.enter_context(temporary_folder()), named))
                if kind is PAIR and options.warm_up:
                    await measure(Run("warm-up", ("SteadyChat",), 10, options.warm_up), options, {}, replicas)
            console.print(f"{run.scenario}, {run.users} people, {run.seconds:g} s …")
            outcomes.append(await measure(run, options, chosen, replicas))
            show(outcomes[-1], console)
    return outcomes


def show(outcome: Outcome, console: Console) -> None:
    table = Table("metric", "stat", "found", "limit", "")
    for row in [*outcome.rows, *outcome.generator]:
        mark = "" if row.kept else ("[red]MISSED[/red]" if row in outcome.rows else "[red]INVALID[/red]")
        table.add_row(row.metric, row.stat, f"{row.found:,.1f}", f"{row.limit:,.6g}", mark)
    console.print(table)
    for sentence in outcome.results.wrong:
        console.print(f"  {sentence}", markup=False)


def show_targets(outcomes: list[Outcome], console: Console) -> None:
    table = Table(*targets.HEAD)
    for row, missed in targets.rows(load_report.seen(outcomes)):
        table.add_row(*map(str, row), style="red" if missed else "")
    console.print(table)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be given again")
    parser.add_argument("--users", type=int, help="people at once, in every scenario")
    parser.add_argument("--seconds", type=float, help="of each scenario")
    parser.add_argument("--host", default="", help="address to load; with commas further addresses of single replicas")
    parser.add_argument("--processes", type=int, default=1, help="Locust workers on this machine")
    parser.add_argument("--expect-workers", type=int, default=0, help="Locust workers that connect from elsewhere")
    parser.add_argument("--model", default=MODEL, help="of our own replicas")
    parser.add_argument("--limits", type=Path, default=limits.SLO)
    parser.add_argument("--warm-up", type=float, default=WARM_UP_SECONDS, help="seconds before the first scenario")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(width=120, highlight=False)
    chosen = limits.load(options.limits)
    try:
        outcomes = uvloop.run(run_all(options, chosen, console))
    except ScriptError as error:
        console.print(str(error), markup=False)
        return Verdict.SCRIPT_ERROR
    found = limits.verdict([r for o in outcomes for r in o.rows], [r for o in outcomes for r in o.generator])
    show_targets(outcomes, console)
    page = load_report.write(options.out, outcomes, found, options.host or options.model)
    console.print(f"{found.name}: {page}")
    return found


if __name__ == "__main__":
    sys.exit(main())
