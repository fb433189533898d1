"""The command line: `pulseline serve | worker | turns | doctor | sweep | migrate | ingest | ask | postgres`."""

import asyncio
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import click
import psycopg
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from functions.settings import Settings, describe, lend_provider_keys, unknown
from graph.eventlog.errors import LogError

console = Console(stderr=True, highlight=False)
USAGE_ERROR, FAILED = 2, 1
TABLE_CHARACTERS = 200  # where it is not a terminal


class Refused(click.ClickException):
    exit_code = USAGE_ERROR


def _settings() -> Settings:
    if names := unknown(dict(os.environ)):
        raise Refused(f"Unknown setting {', '.join(names)}. The settings are listed in the README.")
    lend_provider_keys()
    try:
        return Settings()
    except ValidationError as error:
        raise Refused(f"A setting is wrong.\n{describe(error)}") from None


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    """DATABASE_URL, or the embedded Postgres for as long as it is used here."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    from functions.embedded_postgres import EmbeddedPostgres

    with EmbeddedPostgres(settings.home).running() as url:
        yield url


def _explained(command: Callable[..., None]) -> Callable[..., None]:
    """What is known to go wrong becomes one sentence that says what to do, instead of a traceback."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except psycopg.OperationalError as error:
            raise click.ClickException(
                f"The database cannot be reached: {_reason(error)}\n"
                "Check that Postgres runs and that DATABASE_URL is right, or unset it to use the embedded one."
            ) from None
        except psycopg.errors.UndefinedTable:
            raise click.ClickException("This database has not our tables. Run `pulseline migrate`.") from None
        except psycopg.Error as error:
            raise click.ClickException(
                f"The database refuses this: {_reason(error)}\nTry `pulseline doctor`."
            ) from None
        except (LogError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        except _embedded_failure() as error:
            raise click.ClickException(str(error)) from None

    return run


def _reason(error: psycopg.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _embedded_failure() -> type[Exception]:
    from functions.postgres_programs import EmbeddedPostgresFailed

    return EmbeddedPostgresFailed


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import uvloop

    return uvloop.run(coroutine)


async def _migrate(url: str) -> None:
    from graph.eventlog.log import open_pool
    from graph.eventlog.saver import EventLogSaver

    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5):
        pass  # fails here, at once and with a reason, where a pool would try for long
    async with open_pool(url, max_size=2) as pool:
        await EventLogSaver(pool).setup()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pulseline")
def main() -> None:
    """Pulseline: answers that stream token by token and cannot be lost."""
    signal.signal(signal.SIGTERM, _interrupted)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--open", "open_page", is_flag=True, help="Open the page where there is a desktop.")
@_explained
def serve(host: str, port: int, open_page: bool) -> None:
    """API, page and, unless PULSELINE_WORKER=off, a worker."""
    settings = _settings()
    from functions.serve import listen
    from functions.serve import serve as run
    from graph.eventlog.migrate import migrated

    def greet(address: str) -> None:
        console.print(f"Pulseline answers at [bold]{address}[/bold]  (Ctrl-C ends it)")
        if open_page and _has_desktop():
            webbrowser.open(address)

    signal.signal(signal.SIGTERM, _stop)  # until the server takes over: end what was started, as Ctrl-C does
    with listen(host, port) as listening, _database(settings) as url:
        if settings.worker == "on" or not _run(migrated(url)):
            _run(_migrate(url))
        if settings.database_url is None and settings.graph is None and not settings.model.startswith("scripted"):
            _ingest(settings, url, [])
        status = run(settings, url, listening, greet)
    sys.exit(status)


def _interrupted(*_: object) -> None:
    """As the signal would have ended it; in a container the first process has no such default."""
    raise SystemExit(128 + signal.SIGTERM)


def _stop(*_: object) -> None:
    raise SystemExit(0)


def _has_desktop() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@main.command()
@_explained
def worker() -> None:
    """Only a worker: claims and runs turns, serves no HTTP but what METRICS_PORT shows."""
    settings = _settings()
    from functions.serve import work

    with _database(settings) as url:
        _run(_migrate(url))
        _run(work(settings, url))


@main.command()
@_explained
def migrate() -> None:
    """Bring the database to this release's schema."""
    with _database(_settings()) as url:
        _run(_migrate(url))
    console.print("The database has this release's schema.")


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--starter", is_flag=True, help="The corpus that comes with Pulseline.")
@click.option("--remove", metavar="ID", multiple=True, help="Take this document out, with all that was made of it.")
@click.option("--clear", is_flag=True, help="Take all documents out.")
@_explained
def ingest(paths: tuple[Path, ...], starter: bool, remove: tuple[str, ...], clear: bool) -> None:
    """Read documents into the passages that answers are made of: Markdown, text, HTML, PDF, JSON lines, MedQuAD XML.

    May be stopped at any time and run again: what was read stays, and the rest follows. What has not changed is left
    as it is. A file that can't be read is named and skipped; the exit status is then 1.
    """
    if [bool(paths), starter, bool(remove), clear].count(True) != 1:
        raise click.UsageError("Name files or folders, or say --starter, --remove ID or --clear.")
    settings = _settings()
    with _database(settings) as url:
        _run(_migrate(url))
        failed = _remove(url, remove) if remove or clear else _ingest(settings, url, list(paths))
        if failed:
            sys.exit(FAILED)


def _remove(url: str, document_ids: tuple[str, ...]) -> int:
    """Of no ids: all documents. Gives how many were not there."""
    from graph.eventlog.log import open_pool
    from graph.retrieval.ingest import clear, remove

    async def run() -> list[str]:
        async with open_pool(url, max_size=2) as pool:
            return await (remove(document_ids, pool=pool) if document_ids else clear(pool=pool))

    missing: list[str] = _run(run())
    for document_id in missing:
        console.print(f"no document {document_id} is here", style="red", markup=False, soft_wrap=True)
    console.print(
        f"removed {len(set(document_ids)) - len(missing)} documents" if document_ids else "removed all documents"
    )
    return len(missing)


def _ingest(settings: Settings, url: str, paths: list[Path]) -> int:
    """Shows a progress bar; gives how many files had to be skipped."""
    from graph.eventlog.log import open_pool
    from graph.retrieval.embed import open_embedder
    from graph.retrieval.ingest import STARTER, Report, ingest

    columns = (TextColumn("Reading articles"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=None)

        async def run() -> Report:
            async with open_pool(url, max_size=4) as pool:
                embedder = open_embedder(settings.embeddings)
                return await ingest(
                    paths or [STARTER],
                    pool=pool,
                    embedder=embedder,
                    progress=lambda done, total: progress.update(bar, completed=done, total=total),
                )

        report = _run(run())
    for name, reason in report.skipped:
        console.print(f"skipped {name}: {reason}", style="red", markup=False, soft_wrap=True)
    if report.stored:
        pace = report.passages / (time.monotonic() - began)
        console.print(f"read {report.stored} articles, {report.passages} passages, {pace:.0f} a second")
    if report.unchanged:
        console.print(f"{report.unchanged} articles, unchanged")
    return len(report.skipped)


@main.command()
@click.argument("question")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where Pulseline serves.")
@click.option("--session", type=click.UUID, help="Go on with this session.")
def ask(question: str, url: str, session: UUID | None) -> None:
    """Ask from the terminal: stages, tokens and sources. Ctrl-C stops the answer."""
    from functions.ask import ask as run

    sys.exit(asyncio.run(run(question, url, session, _settings().home)))


@main.command()
@_explained
def doctor() -> None:
    """Try everything that Pulseline needs, and say how to mend what is wrong; the exit status is then 1."""
    settings = _settings()
    from functions.doctor import findings, row

    with _database(settings) as url:
        if settings.database_url is None:
            _run(_migrate(url))
        output = Console(width=None if sys.stdout.isatty() else TABLE_CHARACTERS, highlight=False)
        well = _run(findings(settings, url, lambda finding: output.print(row(finding))))
    sys.exit(0 if well else FAILED)


@main.group(invoke_without_command=True)
@click.pass_context
@_explained
def turns(context: click.Context) -> None:
    """What is queued, runs or is stuck; `turns cancel` ends one."""
    if context.invoked_subcommand is not None:
        return
    from functions.turns import active, table

    with _database(_settings()) as url:
        found = _run(active(url))
    if not found:
        console.print("no turn is queued or running")
    else:
        Console(width=None if sys.stdout.isatty() else TABLE_CHARACTERS, highlight=False).print(table(found))


@turns.command()
@click.argument("session", type=click.UUID)
@click.option("--turn", type=click.UUID, help="This turn and no later one.")
@click.option("--reason", type=click.Choice(["error", "timeout"]), default="error", show_default=True)
@_explained
def cancel(session: UUID, turn: UUID | None, reason: Literal["error", "timeout"]) -> None:
    """End a turn, whoever works on it; what it has said so far is kept."""
    from functions.turns import cancel as run

    settings = _settings()
    with _database(settings) as url:
        ended = _run(run(url, session, turn, reason, notify=settings.notify == "on"))
    click.echo(f"{ended.turn_id} {ended.status}")


@main.command()
@click.option("--older-than", metavar="HOURS", default=24.0, show_default=True, help="How long ago a turn ended.")
@_explained
def sweep(older_than: float) -> None:
    """What is to be done from time to time, by anyone: removes the token rows of turns that ended long ago, whose
    answers stay, and erases the sessions that are older than PULSELINE_RETENTION_DAYS, where that is set."""
    settings = _settings()
    with _database(settings) as url:
        console.print(f"pruned {_run(_sweep(url, older_than * 3600))} turns")
        if settings.retention_days is not None:
            console.print(f"erased {_run(_expire(url, settings.retention_days))} sessions")


async def _expire(url: str, days: float) -> int:
    from functions.sweep import expire
    from graph.eventlog.log import open_pool
    from graph.eventlog.sessions import Sessions

    async with open_pool(url, max_size=2) as pool:
        return await expire(Sessions(pool), days)


async def _sweep(url: str, age_seconds: float) -> int:
    from functions.sweep import sweep as run
    from graph.eventlog.log import Log, open_pool

    async with open_pool(url, max_size=2) as pool:
        return await run(Log(pool), age_seconds)


@main.group()
def postgres() -> None:
    """The embedded Postgres by itself, so that several replicas can share it."""


@postgres.command()
@_explained
def start() -> None:
    """Start it, print its DATABASE_URL and leave it running."""
    from functions.embedded_postgres import EmbeddedPostgres

    click.echo(EmbeddedPostgres(_settings().home).start())


@postgres.command()
@_explained
def stop() -> None:
    """Stop it, whoever uses it."""
    from functions.embedded_postgres import EmbeddedPostgres

    EmbeddedPostgres(_settings().home).stop()


@postgres.command(name="url")
@_explained
def show_url() -> None:
    """Print its DATABASE_URL."""
    from functions.embedded_postgres import EmbeddedPostgres

    address = EmbeddedPostgres(_settings().home).url()
    if address is None:
        raise click.ClickException("The embedded Postgres does not run. Start it: pulseline postgres start")
    click.echo(address)
