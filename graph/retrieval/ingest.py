"""Puts documents into the library: read → cut → encode → store. What has not changed costs no encoding."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Literal
from psycopg_pool import AsyncConnectionPool

from graph.retrieval import formats
from graph.retrieval.documents import Document, Passage, Skipped
from graph.retrieval.embed import Embedder
from graph.retrieval.queries import query
from graph.retrieval.search import ForeignEncoder, literal
from graph.retrieval.tokens import Reduced, reduce

STARTER = Path(__file__).parent / "corpus"
ENCODING = "2"  # raise it when passages are cut or encoded in another way: all are then made anew
READ_DOCUMENTS = 64  # looked up together
GROUP_PASSAGES = 64  # encoded and committed together; a run that is killed loses no more than this
BM25 = {"k1": 1.2, "b": 0.75, "title_weight": 2.0, "average": 80.0}

Progress = Callable[[int, int], None]
Pool = AsyncConnectionPool[Any]


class Report(NamedTuple):
    """`stored` and `unchanged` count documents; `passages` counts what was encoded."""

    stored: int
    unchanged: int
    passages: int
    skipped: list[Skipped]


class Prepared(NamedTuple):
    document: Document
    content_hash: str


async def ingest(
    paths: Iterable[Path], *, pool: Pool, embedder: Embedder, progress: Progress = lambda done, total: None
) -> Report:
    """Files, and folders with all that is in them. What can't be read is skipped and named in the report.

    Holds a few documents at a time, however many there are. May be stopped or killed at any time and run again: what
    was committed stays, and the rest follows. `progress` gets the bytes read and the bytes of all files.
    Raises ForeignEncoder when the passages there were made by another encoder.
    """
    await _claim_encoder(pool, embedder)
    reading = _Reading(paths)
    stored = unchanged = passages = 0
    waiting: list[Prepared] = []
    async for documents in reading.groups():
        fresh = await _changed(pool, [Prepared(document, _hash(document, embedder)) for document in documents])
        unchanged += len(documents) - len(fresh)
        waiting += fresh
        for group in _full_groups(waiting):
            passages += await _put(pool, group, embedder)
            stored += len(group)
        progress(reading.bytes_read, reading.bytes)
    if waiting:
        passages += await _put(pool, waiting, embedder)
        stored += len(waiting)
    await _settle(pool)
    progress(reading.bytes, reading.bytes)
    return Report(stored, unchanged, passages, reading.skipped)


async def remove(document_ids: Sequence[str], *, pool: Pool) -> list[str]:
    """Takes documents out of the library with all that was made of them; gives those that were not there."""
    missing = []
    async with _transaction(pool) as cursor:
        for document_id in sorted(set(document_ids)):
            await cursor.execute(query("remove_document"), {"document_id": document_id})
            if cursor.rowcount == 0:
                missing.append(document_id)
    await _settle(pool)
    return missing


async def clear(*, pool: Pool) -> list[str]:
    """Takes all documents out; another encoder may then make those that follow."""
    async with _transaction(pool) as cursor:
        await cursor.execute(query("clear_documents"))
    await _settle(pool)
    return []


class _Reading:
    """Reads in a thread, a few documents at a time."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = list(chain.from_iterable(map(_files, paths)))
        self._sizes = [path.stat().st_size if path.exists() else 0 for path, _ in self._files]
        self.bytes, self.bytes_read = sum(self._sizes), 0
        self.skipped: list[Skipped] = []
        self._seen: set[str] = set()

    async def groups(self) -> AsyncIterator[list[Document]]:
        documents = self._documents()
        while group := await asyncio.to_thread(lambda: list(islice(documents, READ_DOCUMENTS))):
            yield group

    def _documents(self) -> Iterator[Document]:
        for (path, default_id), size in zip(self._files, self._sizes, strict=True):
            for found in formats.read(path, default_id):
                if isinstance(found, Skipped):
                    self.skipped.append(found)
                elif found.document_id in self._seen:
                    self.skipped.append(Skipped(str(path), f"the id {found.document_id!r} was here before"))
                else:
                    self._seen.add(found.document_id)
                    yield found
            self.bytes_read += size


def _files(path: Path) -> list[tuple[Path, str]]:
    """With the id that a file without one gets: its path in the folder that was named, without suffix."""
    if not path.is_dir():
        return [(path, formats.default_id(Path(path.name)))]
    found = sorted(file for file in path.rglob("*") if formats.suffix(file) and file.is_file())
    return [(file, formats.default_id(file.relative_to(path))) for file in found]


def _full_groups(waiting: list[Prepared]) -> Iterator[list[Prepared]]:
    """Takes groups of enough passages out of what waits."""
    while sum(len(prepared.document.passages) for prepared in waiting) >= GROUP_PASSAGES:
        count = size = 0
        while size < GROUP_PASSAGES:
            size += len(waiting[count].document.passages)
            count += 1
        yield waiting[:count]
        del waiting[:count]


def _hash(document: Document, embedder: Embedder) -> str:
    return hashlib.sha256(f"{ENCODING} {embedder.name} {document.content_hash}".encode()).hexdigest()


@asynccontextmanager
async def _transaction(pool: Pool) -> AsyncIterator[AsyncCursor[DictRow]]:
    async with (
        pool.connection() as connection,
        connection.transaction(),
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        yield cursor


async def _claim_encoder(pool: Pool, embedder: Embedder) -> None:
    """With a new encoder comes an index for its dimension."""
    dimensions = await embedder.measure()
    async with _transaction(pool) as cursor:
        claimed = False
        for statement in ("claim_encoder", "change_encoder"):
            await cursor.execute(query(statement), {"encoder": embedder.name, "dimensions": dimensions})
            claimed = claimed or await cursor.fetchone() is not None
        if claimed:
            await cursor.execute(query("drop_vector_index"))
            await cursor.execute(SQL(query("make_vector_index")).format(dimensions=Literal(dimensions)))
        await cursor.execute(query("encoder"))
        there = (await cursor.fetchall())[0]
    if (there["encoder"], there["dimensions"]) != (embedder.name, dimensions):
        raise ForeignEncoder(f"{there['encoder']} ({there['dimensions']})", f"{embedder.name} ({dimensions})")


async def _changed(pool: Pool, read: list[Prepared]) -> list[Prepared]:
    hashes = {prepared.document.document_id: prepared.content_hash for prepared in read}
    async with _transaction(pool) as cursor:
        await cursor.execute(query("known_documents"), {"documents": list(hashes), "hashes": list(hashes.values())})
        known = {row["document_id"] for row in await cursor.fetchall()}
    return [prepared for prepared in read if prepared.document.document_id not in known]


async def _put(pool: Pool, group: Sequence[Prepared], embedder: Embedder) -> int:
    """One transaction: a reader sees the old passages or the new ones. Documents are locked in one order, so that
    ingests that meet never wait for each other in a circle."""
    group = sorted(group, key=lambda prepared: prepared.document.document_id)
    passages = [(p.document, ordinal, one) for p in group for ordinal, one in enumerate(p.document.passages, start=1)]
    embeddings, reduced = await _encoded([_parts(document, passage) for document, _, passage in passages], embedder)
    async with _transaction(pool) as cursor:
        await cursor.executemany(query("put_document"), [_about(prepared, embedder.name) for prepared in group])
        await cursor.execute(query("drop_passages"), {"documents": [p.document.document_id for p in group]})
        await cursor.execute(query("passage_ids"), {"count": len(passages)})
        ids = [row["passage_id"] for row in await cursor.fetchall()]
        rows = [
            {
                "passage_id": number,
                "document_id": document.document_id,
                "ordinal": ordinal,
                "heading": passage.heading,
                "sentences": list(passage.sentences),
                "tokens": tokens.packed,
                "token_ends": tokens.ends,
            }
            for number, (document, ordinal, passage), tokens in zip(ids, passages, reduced, strict=True)
        ]
        await cursor.executemany(query("put_passage"), rows)
        await cursor.execute(query("put_vectors"), {"ids": ids, "embeddings": embeddings})
        titles = [f"{document.title} {passage.heading}" for document, _, passage in passages]
        words = {"ids": ids, "texts": [passage.text for _, _, passage in passages], "titles": titles}
        await cursor.execute(query("put_words"), words | BM25)
    return len(passages)


async def _encoded(texts: list[list[str]], embedder: Embedder) -> tuple[list[str], list[Reduced]]:
    """A slice at a time, since what the encoder gives for a passage is twenty times what is kept of it."""
    embeddings: list[str] = []
    reduced: list[Reduced] = []
    for start in range(0, len(texts), GROUP_PASSAGES):
        part = texts[start : start + GROUP_PASSAGES]
        encoded = await embedder.encode(part)
        embeddings += map(literal, await embedder.embeddings(part, encoded))
        reduced += await embedder.apart(lambda made: [reduce(one) for one in made], encoded)
    return embeddings, reduced


def _about(prepared: Prepared, encoder: str) -> dict[str, Any]:
    document = prepared.document
    return {
        "document_id": document.document_id,
        "title": document.title,
        "url": document.url,
        "content_hash": prepared.content_hash,
        "encoder": encoder,
    }


def _parts(document: Document, passage: Passage) -> list[str]:
    """A passage is read under its title and heading: "Symptoms" alone says nothing."""
    heading = f" {passage.heading}." if passage.heading else ""
    return [f"{document.title}.{heading}", *passage.sentences]


async def _settle(pool: Pool) -> None:
    """Makes searches fit for what has come and gone: counts the words, takes removed passages out of the indexes and
    tells the planner. Nothing when nothing has changed. A run that was killed may have stored and not counted."""
    if await _count_words(pool):
        async with pool.connection() as connection:
            await connection.execute(query("vacuum_library"))


async def _count_words(pool: Pool) -> bool:
    """Whether there was anything new to count."""
    async with _transaction(pool) as cursor:
        await cursor.execute(query("lock_word_counts"))
        await cursor.execute(query("library_now"))
        there = (await cursor.fetchall())[0]
        if (there["passages"], there["last"]) == (there["counted_passages"], there["counted_last"]):
            return False
        await cursor.execute(query("clear_word_counts"))
        await cursor.execute(query("count_words"))
        await cursor.execute(query("remember_count"), there)
        return True
