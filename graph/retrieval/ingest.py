"""Puts documents into the library: read → cut → encode → store. What has not changed costs no encoding."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from graph.retrieval.documents import SUFFIXES, Document, Passage, UnreadableFile, read
from graph.retrieval.embed import Embedder, Encoded
from graph.retrieval.queries import query
from graph.retrieval.rerank import pack
from graph.retrieval.search import ForeignEncoder, literal

STARTER = Path(__file__).parent / "corpus"
ENCODING = "1"  # raise it when passages are cut or encoded in another way: all are then made anew
GROUP_DOCUMENTS = 8  # encoded together and committed one by one

Progress = Callable[[int, int], None]
Pool = AsyncConnectionPool[Any]


class Skipped(NamedTuple):
    path: Path
    reason: str


class Report(NamedTuple):
    """`stored` and `unchanged` count documents; `passages` counts what was encoded."""

    stored: int
    unchanged: int
    passages: int
    skipped: list[Skipped]


async def ingest(
    paths: Iterable[Path], *, pool: Pool, embedder: Embedder, progress: Progress = lambda done, total: None
) -> Report:
    """Files, and folders with all that is in them. A file that can't be read is skipped and named in the report.

    `progress` gets the documents done and all that are to be encoded. May be stopped at any time and run again.
    Raises ForeignEncoder when the passages there were made by another encoder.
    """
    documents, skipped = await asyncio.to_thread(_read_all, list(paths))
    await _claim_encoder(pool, embedder)
    hashes = {document.document_id: _hash(document, embedder) for document in documents}
    known = await _known(pool, hashes)
    fresh = [document for document in documents if document.document_id not in known]
    done = passages = 0
    for start in range(0, len(fresh), GROUP_DOCUMENTS):
        progress(done, len(fresh))
        group = fresh[start : start + GROUP_DOCUMENTS]
        encoded = await _encode(group, embedder)
        for document, vectors in zip(group, encoded, strict=True):
            await _store(pool, document, hashes[document.document_id], vectors, embedder.name)
            passages += len(vectors)
        done += len(group)
    progress(done, len(fresh))
    if fresh:
        await _count_words(pool)
    return Report(len(fresh), len(documents) - len(fresh), passages, skipped)


def _read_all(paths: list[Path]) -> tuple[list[Document], list[Skipped]]:
    documents: dict[str, Document] = {}
    skipped: list[Skipped] = []
    for path, default_id in chain.from_iterable(map(_files, paths)):
        try:
            document = read(path, default_id)
            if document.document_id in documents:
                raise UnreadableFile(f"another file here has the id {document.document_id!r} too")
            documents[document.document_id] = document
        except UnreadableFile as error:
            skipped.append(Skipped(path, str(error)))
    return list(documents.values()), skipped


def _files(path: Path) -> list[tuple[Path, str]]:
    """With the id that a file without one gets: its path in the folder that was named, without suffix."""
    if not path.is_dir():
        return [(path, path.stem)]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return [(file, file.relative_to(path).with_suffix("").as_posix()) for file in found]


def _hash(document: Document, embedder: Embedder) -> str:
    return hashlib.sha256(f"{ENCODING} {embedder.name} {document.content_hash}".encode()).hexdigest()


async def _encode(documents: Sequence[Document], embedder: Embedder) -> list[list[Encoded]]:
    """All passages of all documents at once, so that those of like length share a batch."""
    encoded = iter(await embedder.encode([_parts(d, passage) for d in documents for passage in d.passages]))
    return [[next(encoded) for _ in document.passages] for document in documents]


def _parts(document: Document, passage: Passage) -> list[str]:
    """A passage is read under its title and heading: "Symptoms" alone says nothing."""
    heading = f" {passage.heading}." if passage.heading else ""
    return [f"{document.title}.{heading}", *passage.sentences]


@asynccontextmanager
async def _transaction(pool: Pool) -> AsyncIterator[AsyncCursor[DictRow]]:
    async with (
        pool.connection() as connection,
        connection.transaction(),
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        yield cursor


async def _claim_encoder(pool: Pool, embedder: Embedder) -> None:
    async with _transaction(pool) as cursor:
        await cursor.execute(query("claim_encoder"), {"name": embedder.name, "dimensions": embedder.dimensions})
        await cursor.execute(query("encoder"))
        there = (await cursor.fetchall())[0]["name"]
    if there != embedder.name:
        raise ForeignEncoder(there, embedder.name)


async def _known(pool: Pool, hashes: dict[str, str]) -> set[str]:
    async with _transaction(pool) as cursor:
        await cursor.execute(query("known_documents"), {"documents": list(hashes), "hashes": list(hashes.values())})
        return {row["document_id"] for row in await cursor.fetchall()}


async def _store(pool: Pool, document: Document, content_hash: str, encoded: Sequence[Encoded], encoder: str) -> None:
    """One transaction: a reader sees the old passages or the new ones."""
    about = {"document_id": document.document_id, "title": document.title, "url": document.url}
    rows = [
        {**about, "ordinal": ordinal, "encoder": encoder, **_row(passage, vectors)}
        for ordinal, (passage, vectors) in enumerate(zip(document.passages, encoded, strict=True), start=1)
    ]
    async with _transaction(pool) as cursor:
        await cursor.execute(query("put_document"), {**about, "content_hash": content_hash})
        await cursor.execute(query("drop_passages"), about)
        await cursor.executemany(query("put_passage"), rows)


def _row(passage: Passage, vectors: Encoded) -> dict[str, Any]:
    return {
        "heading": passage.heading,
        "sentences": list(passage.sentences),
        "text": passage.text,
        "embedding": literal(vectors.vector),
        "tokens": pack(vectors.tokens),
        "token_ends": vectors.ends,
    }


async def _count_words(pool: Pool) -> None:
    async with _transaction(pool) as cursor:
        for statement in ("lock_word_counts", "clear_word_counts", "count_words"):
            await cursor.execute(query(statement))
