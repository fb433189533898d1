"""`make eval`: how good the answers' sources are, how fast they are found, what is declined, what raises an alarm.

The libraries are kept in --home, so that a second run encodes nothing. The loop and the connections are those of a
replica with nothing between it and Postgres: statements are prepared.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from functions.embedded_postgres import EmbeddedPostgres
from graph.eventlog.log import open_pool
from graph.eventlog.saver import EventLogSaver
from graph.rag_agent import FIT_NEEDED
from graph.retrieval.embed import Embedder
from graph.retrieval.ingest import STARTER, ingest
from tests.evaluation import abstention, questions, report, retrieval, safety
from tests.evaluation.questions import Question
from tests.evaluation.retrieval import PEOPLE, SYSTEMS, Scores, Step, Times

console = Console(width=140, highlight=False)
NDCG_NEEDED = 0.74
RETRIEVAL_P95_MS, RERANKING_P95_MS = 150, 100
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


@contextmanager
def counted(description: str, total: int) -> Iterator[Step]:
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        bar = progress.add_task(description, total=total)
        yield lambda: progress.advance(bar)


@click.command()
@click.option("--medquad", type=click.Path(path_type=Path), default=Path("../shared/data/medquad"), show_default=True)
@click.option("--home", type=click.Path(path_type=Path), default=Path(".cache/eval"), show_default=True)
@click.option("--report", "out", type=click.Path(path_type=Path), default=Path(".cache/eval/report.html"))
def main(medquad: Path, home: Path, out: Path) -> None:
    """Measure retrieval, abstention and the safety gate; without MedQuAD, on the starter corpus alone."""
    with EmbeddedPostgres(home).running() as url:
        sections, met = uvloop.run(_measured(url, medquad if medquad.is_dir() else None))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report.page(sections))
    console.print(f"report: {out}")
    sys.exit(0 if met else 1)


async def _measured(url: str, medquad: Path | None) -> tuple[list[str], bool]:
    asked = questions.starter()
    starter_url = await _library(url, "starter", [STARTER])
    sections, met = [], True
    sections.append(await _retrieval("The starter corpus", starter_url, [q for q in asked if q.relevant], []))
    sections.append(await _abstention(starter_url, asked))
    safe, met = _safety()
    sections.append(safe)
    if medquad is None:
        console.print("MedQuAD is not there: measured on the starter corpus alone")
        return sections, met
    kept = await _library(url, "medquad", [medquad / "passages.jsonl.gz"])
    missed: list[str] = []
    sections.append(await _retrieval("MedQuAD", kept, questions.medquad(medquad), missed))
    for line in missed:
        console.print(f"missed: {line}", style="red")
    return sections, met and not missed


async def _library(url: str, name: str, paths: list[Path]) -> str:
    """A database of that name with these documents in it."""
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("select from pg_database where datname = %s", [name]).fetchone() is None:
            connection.execute(f"create database {name}".encode())
    library_url = psycopg.conninfo.make_conninfo(url, dbname=name)
    began = time.monotonic()
    async with open_pool(library_url, max_size=4) as pool:
        await EventLogSaver(pool).setup()
        with Progress(TextColumn(f"reading {name}"), BarColumn(), TimeRemainingColumn(), console=console) as progress:
            bar = progress.add_task("", total=None)
            done = await ingest(
                paths,
                pool=pool,
                embedder=Embedder(),
                progress=lambda read, total: progress.update(bar, completed=read, total=total),
            )
        if done.passages:
            async with pool.connection() as connection_:
                await connection_.execute("analyze")
    seconds, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(
        f"{name}: {done.stored} documents stored, {done.unchanged} unchanged, {len(done.skipped)} skipped, "
        f"{done.passages / seconds:.0f} passages/s, peak memory so far {peak:.0f} MB"
    )
    return library_url


async def _retrieval(title: str, url: str, asked: list[Question], missed: list[str]) -> str:
    async with open_pool(url, max_size=PEOPLE, prepare=lambda: True) as pool:
        with counted(f"{title}: ranking", len(SYSTEMS) * len(asked)) as step:
            scores = await retrieval.score(pool, asked, step)
        with counted(f"{title}: clocking", 2 * len(asked)) as step:
            times = [await retrieval.clock(pool, asked, people, step) for people in (1, PEOPLE)]
    _print_scores(title, scores, times)
    best = scores[-1]
    if best.measures["nDCG@10"].mean < NDCG_NEEDED or best.gain.low <= 0:
        missed.append(f"nDCG@10 of {NDCG_NEEDED}, and more than dense alone")
    missed += [
        f"p95 of {RETRIEVAL_P95_MS} and {RERANKING_P95_MS} ms with {one.people} at once"
        for one in times
        if one.p(0.95)[0] > RETRIEVAL_P95_MS or one.p(0.95)[1] > RERANKING_P95_MS
    ]
    about = report.paragraph(f"{len(asked)} questions. In brackets: 95 % confidence intervals by bootstrap.")
    parts = (about, report.bars(scores), report.scores_table(scores), report.times_table(times))
    return report.section(title, *parts)


def _print_scores(title: str, scores: list[Scores], times: list[Times]) -> None:
    table = Table("system", *scores[0].measures, "nDCG@10 beyond dense", title=title)
    for one in scores:
        table.add_row(one.system, *map(str, one.measures.values()), str(one.gain))
    console.print(table)
    for clocked in times:
        (r50, k50), (r95, k95) = clocked.p(0.5), clocked.p(0.95)
        console.print(
            f"{clocked.people} at once: retrieval p50 {r50:.0f} ms, p95 {r95:.0f} ms; "
            f"reranking p50 {k50:.0f} ms, p95 {k95:.0f} ms"
        )


async def _abstention(url: str, asked: list[Question]) -> str:
    async with open_pool(url, max_size=2, prepare=lambda: True) as pool:
        with counted("abstention", len(asked)) as step:
            found = await abstention.fits(pool, asked, step)
    table = Table("threshold", "tune: false answers", "false abstentions", "judge: false answers", "false abstentions")
    curves = {split: abstention.curve(found, split) for split in ("tune", "judge")}
    for tune, judge in list(zip(curves["tune"], curves["judge"], strict=True))[::4]:
        shares = (tune.false_answers, tune.false_abstentions, judge.false_answers, judge.false_abstentions)
        table.add_row(f"{tune.threshold:.3f}", *(f"{share:.3f}" for share in shares))
    here = abstention.point(found, "judge")
    said = (
        f"At the threshold {FIT_NEEDED}, on questions it was not chosen on: {here.false_answers:.1%} of the "
        f"unanswerable are answered, {here.false_abstentions:.1%} of the answerable are declined."
    )
    console.print(table)
    console.print(said)
    plot = report.trade(curves, FIT_NEEDED)
    wrong = report.errors_table(abstention.errors(found, "judge"))
    return report.section("Abstention", report.paragraph(said), plot, wrong)


def _safety() -> tuple[str, bool]:
    judged = safety.judge()
    recall, precision = safety.recall(judged), safety.precision(judged)
    held_out = safety.judge_held_out()
    said = (
        f"{len(judged)} messages that the rules were tuned on: recall of alarms {recall:.3f}, "
        f"precision {precision:.3f}. {len(held_out)} that they were not: recall {safety.recalled(held_out)}, precision "
        f"{safety.precision(held_out):.3f}; without even a line: {safety.silenced(held_out)}."
    )
    console.print(said)
    wrong = [one for one in judged if one.missed or one.false_alarm]  # the others stay unread
    rows = [[one.message.text, one.message.expected, one.found] for one in wrong]
    return report.section("Safety", report.paragraph(said), report.table(["message", "expected", "found"], rows)), (
        recall == 1
    )


if __name__ == "__main__":
    main()
