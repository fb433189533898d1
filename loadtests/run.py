"""`make load`: runs the scenarios against replicas on this machine or at HOST, compares with slo.toml, writes a report.

Exit status: 0 every limit kept, 1 one missed, 2 a script failed, 3 the load generator was too busy to be believed.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from loadtests import limits, load_report, report, targets
from loadtests.fleet import Balancer, Fleet, cpu_seconds, fleet, resident_kb
from loadtests.histogram import Histogram
from loadtests.limits import Limits, Row, Verdict
from loadtests.results import Results
from tests.support.folder import temporary_folder

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
MODEL = "scripted?tokens=100&delay_ms=40&stage_ms=0&stamp=1"
SAMPLE_SECONDS = 0.5
STOP_SECONDS = 60  # a turn under way is read to its end
WARM_UP_SECONDS = 3
WORKERS_SECONDS = 120  # until all that are expected have come; they leave after each scenario
GENERATOR = "generator_"

Settings = dict[str, dict[str, str]]  # of replicas, by their names
PAIR: Settings = {"a": {}, "b": {}}
APART: Settings = {"a": {}, "b": {"WORKER": "off"}}  # what is read at b was said at a
STRICT: Settings = {
    "strict": {
        "TURN_TIMEOUT_SECONDS": "4",  # DEADLINE_SECONDS of scenarios/errors.py
        "MODEL": "scripted?tokens=1000&delay_ms=40&stage_ms=0&stamp=1",
    }
}
LONG: Settings = {name: {"MODEL": "scripted?tokens=5000&delay_ms=2&stage_ms=0&stamp=1"} for name in PAIR}
LASTING: Settings = {name: {"MODEL": "scripted?tokens=60&delay_ms=250&stage_ms=0&stamp=1"} for name in PAIR}
BRIEF: Settings = {name: {"MODEL": "scripted?tokens=1&delay_ms=0&stage_ms=0&stamp=1"} for name in PAIR}
EXTRACTIVE: Settings = {name: {"MODEL": "extractive"} for name in PAIR}

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
    """`classes` are of the locustfile; `fault` is what befalls the replicas meanwhile. `warm_up` people chat before: so
    few that the heap which they leave cannot hide what grows where memory is judged.
    """

    scenario: str
    classes: tuple[str, ...]
    users: int
    seconds: float
    fault: Fault | None = None
    replicas: Settings = field(default_factory=lambda: PAIR)
    warm_up: int = 5

    @property
    def elsewhere(self) -> bool:
        """Whether it makes sense against replicas that are not ours."""
        return self.fault is None and self.replicas in (PAIR, APART, BRIEF)


RUNS = (
    Run("steady_chat", ("SteadyChat",), 10, 15),
    Run("steady_chat", ("SteadyChat",), 100, 25),
    Run("blocking", ("Blocking",), 10, 12),
    Run("blocking", ("Blocking",), 100, 12),
    Run("burst", ("Burst",), 10, 17),
    Run("burst", ("Burst",), 100, 25),
    Run("resume_storm", ("ResumeStorm",), 100, 20),
    Run("resume_crowd", ("ResumeCrowd",), 300, 20, None, LASTING),
    Run("other_replica", ("OtherReplica",), 60, 20, None, APART),
    Run("replica_kill", ("ReplicaKill",), 30, 30, kill_one_after_the_other),
    Run("cancel_storm", ("CancelStorm",), 50, 15),
    Run("slow_client", ("Beside", "SlowClient"), 9, 24, None, LONG, 15),
    Run("double_send", ("DoubleSend",), 40, 15),
    Run("idle_tabs", ("IdleTabs",), 200, 25, None, BRIEF, 50),
    Run("extractive", ("Asker",), 10, 18, None, EXTRACTIVE),
    Run("extractive", ("Asker",), 100, 27, None, EXTRACTIVE),
    Run("errors", ("Errors",), 10, 13, None, STRICT),
    Run("errors", ("Errors",), 100, 13, None, STRICT),
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
    balancer_lag_ms: Histogram
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    generator: list[Row] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        return limits.verdict(self.rows, self.generator)

    @property
    def valid(self) -> bool:
        """Whether its times are to be believed; what it saw lost is, in any case."""
        return all(row.kept for row in self.generator)


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
            command += ["--master-bind-port", str(options.master_port)]
            command += ["--expect-workers-max-wait", str(WORKERS_SECONDS)]
        elif options.processes > 1:
            command += ["--processes", str(options.processes)]
        process = await asyncio.create_subprocess_exec(
            *command, *run.classes, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
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
        used, values = await asyncio.to_thread(_look, replicas)  # the balancer must not wait for it
        now = time.monotonic()
        for name, seconds in used.items():
            if name in last and seconds >= last[name]:
                values[name] = 100 * (seconds - last[name]) / (now - at)
        samples.append((time.time(), values))
        last, at = used, now
        await asyncio.sleep(SAMPLE_SECONDS)


def _look(replicas: Fleet) -> tuple[dict[str, float], dict[str, float]]:
    """CPU seconds so far, and memory."""
    used, memory = {"Postgres": cpu_seconds(replicas.postgres), "balancer": time.process_time()}, {}
    for replica in replicas.replicas:
        with suppress(psutil.NoSuchProcess):  # killed a moment ago
            process = psutil.Process(replica.process.pid)
            if replica.process.poll() is None:
                used[f"replica {replica.name}"] = sum(process.cpu_times()[:2])
                memory[f"replica {replica.name} MB"] = resident_kb(process) / 1024
    return used, memory


def measured(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Every metric of the run; shares in percent."""
    results, counts = outcome.results, outcome.results.counts
    metrics = {metric: results.histogram(metric).summary() for metric in sorted(results.latencies)}
    metrics |= {name: {"value": counts[name]} for name in ("violations", "failed", "reconnects", *sorted(counts))}
    if counts["turns"]:
        metrics["success_percent"] = {"value": 100 * counts["whole"] / counts["turns"]}
    if counts["read_ms"]:
        metrics["turns_at_once"] = {"value": counts["read_ms"] / 1000 / outcome.run.seconds}
    if counts["watched"]:
        metrics["goodput_percent"] = {"value": 100 * counts["good"] / counts["watched"]}
    busy = sorted(values["balancer"] for _, values in outcome.samples if "balancer" in values)
    if busy:
        metrics["generator_balancer_percent"] = {"p95": busy[int(0.95 * len(busy))]}
        metrics["generator_balancer_lag_ms"] = outcome.balancer_lag_ms.summary()
    memory = [sum(v for k, v in values.items() if k.endswith(" MB")) for _, values in outcome.samples]
    if memory:
        metrics["memory_kb_a_user"] = {"value": max(0.0, 1024 * (max(memory) - memory[0]) / outcome.run.users)}
    return metrics


async def measure(run: Run, options: argparse.Namespace, chosen: Limits, replicas: Fleet | None) -> Outcome:
    balancer = Balancer(*(replica.address for replica in replicas.replicas) if replicas else ())
    urls = [replica.url for replica in replicas.replicas] if replicas else options.host.split(",")[1:]
    if replicas is not None:
        await balancer.restore()
    began = time.time()
    host = f"http://{balancer.address}" if replicas else options.host.split(",")[0]
    try:
        async with sampling(replicas) as samples, balancer.watched():
            fault = asyncio.create_task(run.fault(replicas, run.seconds)) if run.fault and replicas else None
            results = await locust(run, host, urls, options)
            if fault is not None:
                await fault
    finally:
        balancer.close()
    outcome = Outcome(run, results, samples, os.getloadavg()[0], began, balancer.lag_ms)
    outcome.metrics = measured(outcome)
    ours = ("memory", f"{GENERATOR}balancer")  # what is known of processes that run here
    rows = limits.compare(chosen, run.scenario, run.users, outcome.metrics)
    outcome.rows = [row for row in rows if replicas or not row.metric.startswith(ours)]
    generator = limits.compare_generator(chosen, run.scenario, outcome.metrics)
    outcome.generator = [row for row in generator if replicas or not row.metric.startswith(ours)]
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
    outcomes = []
    for run in chosen_runs(options):
        console.print(f"{limits.sized(run.scenario, run.users)}, {run.seconds:g} s …")
        outcomes.append(await run_one(run, options, chosen))
        show(outcomes[-1], console)
    if not outcomes:
        raise ScriptError("no scenario fits: one with faults or settings of its own cannot run against a HOST")
    return outcomes


async def run_one(run: Run, options: argparse.Namespace, chosen: Limits) -> Outcome:
    """On replicas and a database of its own: what another run left in them does not count."""
    if options.host:
        return await measure(run, options, chosen, None)
    named = {name: {"MODEL": options.model, **settings} for name, settings in run.replicas.items()}
    with temporary_folder() as folder, fleet(folder, named) as replicas:
        if run.replicas is EXTRACTIVE:
            await asyncio.to_thread(ingest, replicas)
        if options.warm_up and run.replicas is not STRICT:
            warm_up = Run("warm-up", ("SteadyChat",), run.warm_up, options.warm_up)
            alone = argparse.Namespace(**vars(options) | {"expect_workers": 0})  # they would leave after it
            await measure(warm_up, alone, {}, replicas)
        return await measure(run, options, chosen, replicas)


def ingest(replicas: Fleet) -> None:
    command = [sys.executable, "-m", "functions", "ingest", "--starter"]
    environment = {**os.environ, "DATABASE_URL": replicas.database_url}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def show(outcome: Outcome, console: Console) -> None:
    table = Table("metric", "stat", "found", "limit", "")
    for row in [*outcome.rows, *outcome.generator]:
        mark = "" if row.kept else ("[red]MISSED[/red]" if row in outcome.rows else "[red]INVALID[/red]")
        table.add_row(row.metric, row.stat, f"{row.found:,.1f}", f"{row.limit:,.6g}", mark)
    console.print(table)
    for sentence in outcome.results.wrong:
        console.print(f"  {sentence}", markup=False)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be given again")
    parser.add_argument("--users", type=int, help="people at once, in every scenario")
    parser.add_argument("--seconds", type=float, help="of each scenario")
    parser.add_argument("--host", default="", help="address to load; with commas further addresses of single replicas")
    parser.add_argument("--processes", type=int, default=1, help="Locust workers on this machine")
    parser.add_argument("--expect-workers", type=int, default=0, help="Locust workers that connect from elsewhere")
    parser.add_argument("--master-port", type=int, default=5557, help="where they connect")
    parser.add_argument("--model", default=MODEL, help="of our own replicas")
    parser.add_argument("--limits", type=Path, default=limits.SLO)
    parser.add_argument("--warm-up", type=float, default=WARM_UP_SECONDS, help="seconds before each scenario")
    parser.add_argument("--out", type=Path, default=report.OUT)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(width=120, highlight=False)
    try:
        return judge(options, console)
    except Exception as error:
        if not isinstance(error, ScriptError):
            traceback.print_exc()
        console.print(str(error), markup=False)
        return Verdict.SCRIPT_ERROR


def judge(options: argparse.Namespace, console: Console) -> Verdict:
    outcomes = uvloop.run(run_all(options, limits.load(options.limits), console))
    found = limits.whole(outcome.verdict for outcome in outcomes)
    asked = {"host": options.host} if options.host else {"model": options.model}
    page = load_report.write(options.out, outcomes, found, asked)
    targets.show(options.out, console)
    console.print(f"{found.name}: {page}")
    return found


if __name__ == "__main__":
    sys.exit(main())
