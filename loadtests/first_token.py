"""Time from POST to the first stage and to the first token, on the offline default, with a warm process.

Compares with the limits: first token under 1 s with 10 people asking at once, retrieval + reranking under 500 ms.
"""

import asyncio
import os
import subprocess
import sys
import time
from statistics import median, quantiles
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from functions.embedded_postgres import EmbeddedPostgres
from loadtests import report
from tests.support.client import Person
from tests.support.folder import temporary_folder
from tests.support.server import Server, serving

QUESTIONS = (
    "What are the symptoms of iron deficiency?",
    "How can I lower my blood pressure?",
    "What helps against hay fever?",
    "When should I see a doctor about back pain?",
    "How is type 2 diabetes diagnosed?",
    "What are the side effects of ibuprofen?",
    "How do I treat a migraine?",
    "What causes heartburn?",
    "Is a high temperature dangerous?",
    "How much sleep do I need?",
)
ROUNDS = 5
LIMIT_FIRST_TOKEN_MS, LIMIT_SEARCH_MS = 1000, 500


class Asked(NamedTuple):
    """Milliseconds after the POST was sent."""

    first_stage: float
    first_token: float
    search: float


async def _ask(person: Person, server: Server, question: str) -> Asked:
    began = time.perf_counter()
    first_stage = search = 0.0
    body = {"message": question}
    async with person.client.stream("POST", f"{server.url}/chat/stream", json=body) as reply:
        session_id = reply.headers["x-session-id"]
        async for line in reply.aiter_lines():
            now = 1000 * (time.perf_counter() - began)
            if line == "event: retrieval_start":
                first_stage = now
            elif line == "event: generation_start":
                search = now - first_stage
            elif line == "event: token":
                await person.cancel(server.url, session_id)
                return Asked(first_stage, now, search)
    raise AssertionError(f"no token for {question!r}")


async def _measure(server: Server) -> dict[int, list[Asked]]:
    measured: dict[int, list[Asked]] = {}
    async with Person() as person:
        for question in QUESTIONS:
            await _ask(person, server, question)
        for people in (1, 10):
            rounds = ROUNDS if people > 1 else 1
            measured[people] = []
            for _ in range(rounds):
                for n in range(0, len(QUESTIONS), people):
                    asked = QUESTIONS[n : n + people]
                    measured[people] += await asyncio.gather(*(_ask(person, server, q) for q in asked))
    return measured


def _percentile_95(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]


def _metrics(asked: list[Asked]) -> dict[str, dict[str, float]]:
    return {
        "first_token_ms": {"p95": _percentile_95([a.first_token for a in asked])},
        "search_ms": {"p95": _percentile_95([a.search for a in asked])},
    }


def run(console: Console) -> bool:
    """Prints the table; tells whether the limits hold."""
    with temporary_folder() as folder, EmbeddedPostgres(folder / "home").running() as url:
        environment = {**os.environ, "DATABASE_URL": url}
        subprocess.run([sys.executable, "-m", "functions", "ingest", "--starter"], env=environment, check=True)
        with serving(url, folder, "extractive", MAX_TURNS_PER_MINUTE="0") as server:
            measured = asyncio.run(_measure(server))
    table = Table("people at once", "first stage p95", "search + rerank p95", "first token p50", "first token p95")
    for people, asked in measured.items():
        tokens = [a.first_token for a in asked]
        table.add_row(
            str(people),
            f"{_percentile_95([a.first_stage for a in asked]):.0f} ms",
            f"{_percentile_95([a.search for a in asked]):.0f} ms",
            f"{median(tokens):.0f} ms",
            f"{_percentile_95(tokens):.0f} ms",
        )
    console.print("Offline default (extractive, MiniLM, MaxSim), starter corpus, warm process: time after POST")
    console.print(table)
    report.keep("first_token", "first_token", {people: _metrics(asked) for people, asked in measured.items()})
    worst = _percentile_95([a.first_token for a in measured[10]])
    search = _percentile_95([a.search for a in measured[10]])
    console.print(
        f"first token / limit: {worst / LIMIT_FIRST_TOKEN_MS:.2f}   search / limit: {search / LIMIT_SEARCH_MS:.2f}"
    )
    return worst < LIMIT_FIRST_TOKEN_MS and search < LIMIT_SEARCH_MS
