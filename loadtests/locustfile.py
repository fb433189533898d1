"""What Locust runs for `make load`. By hand, with its own page or with workers elsewhere, see docs/load.md:

locust -f loadtests/locustfile.py SteadyChat --host http://127.0.0.1:8000
"""

import json
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.scenarios.blocking import Blocking
from loadtests.scenarios.cancel_storm import CancelStorm
from loadtests.scenarios.double_send import DoubleSend
from loadtests.scenarios.errors import Errors
from loadtests.scenarios.idle_tabs import IdleTabs
from loadtests.scenarios.mixed import Mixed
from loadtests.scenarios.replica_kill import ReplicaKill
from loadtests.scenarios.resume_storm import OtherReplica, ResumeCrowd, ResumeStorm
from loadtests.scenarios.slow_client import Beside, SlowClient
from loadtests.scenarios.steady_chat import Asker, Burst, SteadyChat
from loadtests.scenarios.visitor import RESULTS

__all__ = [
    "Asker",
    "Beside",
    "Blocking",
    "Burst",
    "CancelStorm",
    "DoubleSend",
    "Errors",
    "IdleTabs",
    "Mixed",
    "OtherReplica",
    "ReplicaKill",
    "ResumeCrowd",
    "ResumeStorm",
    "SlowClient",
    "SteadyChat",
]

PROBE_SECONDS = 0.02
CPU_SECONDS = 1.0
SCRIPT_ERROR = 2
FINISH, FINISHED = "pulseline_finish", "pulseline_finished"
FINISHED_WORKERS: set[str] = set()
LAST_SECONDS = 10.0


def _options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--replicas", default="", help="addresses of single replicas, with commas, for other_replica")
    parser.add_argument("--results", default="", help="where the measured latencies are written, as JSON")


def _probe(environment: Environment, **_: Any) -> None:
    """How late this process itself is, and how busy: what it measures can't be better than that."""
    if not isinstance(environment.runner, MasterRunner):
        gevent.spawn(_measure_lag)
        gevent.spawn(_measure_cpu)


def _measure_lag() -> None:
    while True:
        due = time.perf_counter() + PROBE_SECONDS
        gevent.sleep(PROBE_SECONDS)
        RESULTS.add("generator_lag_ms", 1000 * (time.perf_counter() - due))


def _measure_cpu() -> None:
    while True:
        cpu, wall = time.process_time(), time.perf_counter()
        gevent.sleep(CPU_SECONDS)
        RESULTS.add("generator_cpu_percent", 100 * (time.process_time() - cpu) / (time.perf_counter() - wall))


def _report(data: dict[str, Any], **_: Any) -> None:
    data["pulseline"] = RESULTS.dump()
    RESULTS.clear()


def _reported(data: dict[str, Any], **_: Any) -> None:
    if "pulseline" in data:
        RESULTS.merge(data["pulseline"])


def _agree(environment: Environment, **_: Any) -> None:
    """Locust's master leaves half a second after it has told its workers to quit, while they still read the answers
    under way to their end. So it asks them first, and waits for what they have found.
    """
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message(FINISH, _finish, concurrent=True)
    elif isinstance(environment.runner, MasterRunner):
        environment.runner.register_message(FINISHED, _finished)


def _finish(environment: Environment, **_: Any) -> None:
    assert isinstance(environment.runner, WorkerRunner)
    environment.runner.stop()
    found = RESULTS.dump()
    RESULTS.clear()
    environment.runner.send_message(FINISHED, found)


def _finished(msg: Any, **_: Any) -> None:
    RESULTS.merge(msg.data)
    FINISHED_WORKERS.add(msg.node_id)


def _wait_for_workers(environment: Environment, **_: Any) -> None:
    """A worker that hands nothing over is a script error: what it found is not in the results."""
    master = environment.runner
    if not isinstance(master, MasterRunner):
        return
    assert environment.parsed_options is not None
    wanted = max(master.worker_count, environment.parsed_options.expect_workers)
    FINISHED_WORKERS.clear()
    master.send_message(FINISH)
    with gevent.Timeout((environment.stop_timeout or 0) + LAST_SECONDS, False):
        while len(FINISHED_WORKERS) + len(master.clients.missing) < wanted:
            gevent.sleep(PROBE_SECONDS)
    if len(FINISHED_WORKERS) < wanted:
        master.log_exception("master", f"{len(FINISHED_WORKERS)} of {wanted} workers handed over what they found", "")


def _write(environment: Environment, **_: Any) -> None:
    """Locust's own exit status would be that of its failure rows; ours are in the results, and judged elsewhere."""
    if isinstance(environment.runner, WorkerRunner):
        return
    exceptions = list(environment.runner.exceptions.values()) if environment.runner is not None else []
    environment.process_exit_code = SCRIPT_ERROR if exceptions else 0
    options = environment.parsed_options
    if options is not None and options.results:
        Path(options.results).write_text(json.dumps(RESULTS.dump()))


events.init.add_listener(_agree)
events.init_command_line_parser.add_listener(_options)
events.test_start.add_listener(_probe)
events.test_stopping.add_listener(_wait_for_workers)
events.report_to_master.add_listener(_report)
events.worker_report.add_listener(_reported)
events.quitting.add_listener(_write)
