"""Documents into a real Postgres, and what comes out of it for a question. The encoder is the real one."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from graph.builder import build_graph, open_parts
from graph.eventlog.log import Pool, open_pool
from graph.rag_agent import NOTHING_FITS, NOTHING_THERE
from graph.retrieval.embed import DIMENSIONS, Embedder, Encoded, ProviderEmbedder, unit
from graph.retrieval.ingest import GROUP_PASSAGES, STARTER, Report, clear, ingest, remove
from graph.retrieval.queries import query
from graph.retrieval.rerank import DEGRADED, SOURCES, Reranker
from graph.retrieval.search import DENSE_WEIGHT, LEXICAL_WEIGHT, ForeignEncoder, Search, literal, statement
from graph.state import turn_input
from tests.conftest import FreshDatabase

ARTICLES = (
    "iron-deficiency",
    "iron-supplements",
    "gout",
    "vitamin-d",
    "ibuprofen",
    "fatigue",
    "eczema",
    "gastroenteritis",
)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture(scope="module")
def library_url(fresh_database: FreshDatabase, embedder: Embedder) -> Iterator[str]:
    """Eight of the starter articles; the tests that use it only read."""

    async def fill(url: str) -> None:
        async with open_pool(url, max_size=2) as pool:
            await ingest([STARTER / f"{name}.md" for name in ARTICLES], pool=pool, embedder=embedder)

    with fresh_database() as url:
        asyncio.run(fill(url))
        yield url


@pytest.fixture
async def library(library_url: str) -> AsyncIterator[Pool]:
    async with open_pool(library_url, max_size=4) as pool:
        yield pool


class Counting(Embedder):
    """Counts what it encodes, in all and at most together."""

    encoded = most = 0

    async def encode(self, texts: Sequence[Sequence[str]]) -> list[Encoded]:
        self.encoded += len(texts)
        self.most = max(self.most, len(texts))
        return await super().encode(texts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("gout", "eczema"):
        shutil.copy(STARTER / f"{name}.md", tmp_path)
    return tmp_path


async def put(folder: Path, pool: Pool, embedder: Embedder) -> Report:
    return await ingest([folder], pool=pool, embedder=embedder)


async def stored(pool: Pool) -> dict[str, int]:
    async with pool.connection() as connection:
        rows = await connection.execute("select document_id, count(*) from passages group by document_id")
        return {row["document_id"]: row["count"] for row in await rows.fetchall()}


async def words(pool: Pool, word: str | None = None) -> int:
    """In how many passages the word, or the most frequent one, is known to stand."""
    async with pool.connection() as connection:
        counts = await connection.execute(
            "select coalesce(max(passages), 0) as most from word_counts where %s::text is null or word = %s",
            [word, word],
        )
        row = await counts.fetchone()
    assert row is not None
    return int(row["most"])


async def test_what_has_not_changed_is_not_encoded_again(pool: Pool, folder: Path) -> None:
    counting = Counting()
    first = await put(folder, pool, counting)
    assert (first.stored, first.passages) == (2, counting.encoded)
    again = await put(folder, pool, counting)
    assert again == Report(0, 2, 0, [])
    assert counting.encoded == first.passages


async def test_a_long_document_is_encoded_a_slice_at_a_time(pool: Pool, tmp_path: Path) -> None:
    """All at once, its token vectors would fill the memory: a third of a megabyte a passage."""
    sections = [f"## Part {n}\n\nTea is hot." for n in range(2 * GROUP_PASSAGES + 2)]
    (tmp_path / "book.md").write_text("\n\n".join(sections))
    counting = Counting()
    assert (await put(tmp_path, pool, counting)).passages == counting.encoded == len(sections)
    assert counting.most == GROUP_PASSAGES


async def test_a_changed_document_replaces_its_passages_and_only_them(pool: Pool, folder: Path) -> None:
    counting = Counting()
    await put(folder, pool, counting)
    before = await stored(pool)
    counting.encoded = 0
    (folder / "gout.md").write_text("---\nid: gout\ntitle: Gout\n---\nGout is a kind of arthritis.\n")
    assert (await put(folder, pool, counting)).stored == 1
    assert counting.encoded == 1
    assert await stored(pool) == {"gout": 1, "eczema": before["eczema"]}


async def test_a_bad_file_is_named_and_the_rest_is_read(pool: Pool, folder: Path, embedder: Embedder) -> None:
    (folder / "broken.md").write_bytes(b"\xff\xfe\xff")
    (folder / "twin.md").write_text("---\nid: gout\n---\nAnother gout.")
    (folder / "picture.png").write_bytes(b"png")
    report = await put(folder, pool, embedder)
    assert report.stored == 2
    assert [(Path(skipped.name).name, skipped.reason) for skipped in report.skipped] == [
        ("broken.md", "no UTF-8 text"),
        ("twin.md", "the id 'gout' was here before"),
    ]


async def test_progress_counts_up_to_all_bytes(pool: Pool, tmp_path: Path, embedder: Embedder) -> None:
    for number in range(70):
        (tmp_path / f"note-{number:02}.txt").write_text("Tea is hot.")
    seen: list[tuple[int, int]] = []
    await ingest([tmp_path], pool=pool, embedder=embedder, progress=lambda done, total: seen.append((done, total)))
    total = 70 * len("Tea is hot.")
    assert 0 < seen[0][0] < total
    assert sorted(seen) == seen
    assert seen[-1] == (total, total)


async def test_a_killed_ingest_goes_on_where_it_was(
    database_url: str, pool: Pool, tmp_path: Path, embedder: Embedder
) -> None:
    """Another transaction holds document 300, so that the ingest is killed while it waits in the middle."""
    notes = [{"id": f"note-{n}", "text": f"Tea number {n} is hot."} for n in range(400)]
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "notes.jsonl").write_text("\n".join(json.dumps(note) for note in notes[:1]))
    await put(folder, pool, embedder)
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)))
    async with await psycopg.AsyncConnection.connect(database_url) as rival:
        await rival.execute(
            "insert into documents (document_id, title, content_hash, encoder) values ('note-300', '', '', %s)",
            [embedder.name],
        )
        environment = {**os.environ, "DATABASE_URL": database_url, "PULSELINE_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "functions", "ingest", str(folder)]
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
            try:
                while not await waits_for_a_lock(pool):
                    assert process.poll() is None, (tmp_path / "said").read_text()
            finally:
                process.kill()
                process.wait()
        await rival.rollback()
    there = await stored(pool)
    assert 200 < len(there) < 300
    counting = Counting()
    again = await put(folder, pool, counting)
    assert (again.stored, again.unchanged) == (400 - len(there), len(there))
    assert counting.encoded == again.stored
    assert len(await stored(pool)) == 400
    assert await words(pool, "tea") == 400


async def waits_for_a_lock(pool: Pool) -> bool:
    async with pool.connection() as connection:
        waiting = await connection.execute(
            "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        return await waiting.fetchone() is not None


async def test_an_ingest_that_was_killed_before_it_counted_is_counted_by_the_next(
    pool: Pool, folder: Path, embedder: Embedder
) -> None:
    await put(folder, pool, embedder)
    async with pool.connection() as connection:
        await connection.execute("delete from word_counts")
        await connection.execute("update library set counted_passages = 0, counted_last = 0")
    assert (await put(folder, pool, embedder)).unchanged == 2
    assert await words(pool) > 0


async def test_a_removed_document_takes_all_that_was_made_of_it_along(
    pool: Pool, folder: Path, embedder: Embedder
) -> None:
    await put(folder, pool, embedder)
    before = await stored(pool)
    assert await remove(["gout", "none"], pool=pool) == ["none"]
    assert await stored(pool) == {"eczema": before["eczema"]}
    async with pool.connection() as connection:
        for table in ("passage_vectors", "postings"):
            left = await connection.execute(f"select count(distinct passage_id) as passages from {table}".encode())
            row = await left.fetchone()
            assert row is not None
            assert row["passages"] == before["eczema"], table
    assert not any(p["document_id"] == "gout" for p in (await Search(pool, embedder)("gout")).passages)
    assert await words(pool, "gout") == 0


@pytest.mark.direct
async def test_passages_that_were_removed_take_no_place_among_the_nearest(
    database_url: str, folder: Path, embedder: Embedder
) -> None:
    """They stay in the index until a vacuum, and here they are nearer to the question than all that is left."""
    noise = np.random.default_rng(0).normal(0, 0.01, (200, DIMENSIONS)).astype(np.float32)
    near = unit(await embedder.embed_question("What is gout?") + noise)
    async with open_pool(database_url, max_size=1) as pool:
        await put(folder, pool, embedder)
        by_meaning = Search(pool, embedder, lexical_weight=0)
        async with pool.connection() as connection:  # the only one: as few passages would be read without the index
            await connection.execute("set enable_seqscan = off")
            await connection.execute("set enable_sort = off")
        before = (await by_meaning("What is gout?")).passages
        async with pool.connection() as connection:
            document = "insert into documents (document_id, title, content_hash, encoder) values ('book', '', '', %s)"
            await connection.execute(document, [embedder.name])
            await connection.execute(
                "insert into passages (passage_id, document_id, ordinal, heading, sentences, tokens, token_ends) "
                "select 10000 + n, 'book', n + 1, '', '{}', '', '{}' from generate_series(0, 199) as n"
            )
            vectors = {"ids": list(range(10_000, 10_200)), "embeddings": list(map(literal, near))}
            await connection.execute(query("put_vectors"), vectors)
        assert (await by_meaning("What is gout?")).passages[0]["document_id"] == "book"
        async with pool.connection() as connection:
            await connection.execute("delete from documents where document_id = 'book'")
        assert (await by_meaning("What is gout?")).passages == before


async def test_after_a_removal_no_passage_of_it_is_left_in_the_index(
    pool: Pool, folder: Path, embedder: Embedder
) -> None:
    await put(folder, pool, embedder)
    async with pool.connection() as connection:
        vacuumed = "select vacuum_count from pg_stat_user_tables where relname = 'passage_vectors'"
        before = await (await connection.execute(vacuumed)).fetchone()
        await remove(["gout"], pool=pool)
        after = await (await connection.execute(vacuumed)).fetchone()
    assert before is not None
    assert after is not None
    assert after["vacuum_count"] > before["vacuum_count"]


async def test_two_ingests_at_once_leave_each_passage_once(pool: Pool, folder: Path, embedder: Embedder) -> None:
    await asyncio.gather(put(folder, pool, embedder), put(folder, pool, embedder))
    again = await put(folder, pool, embedder)
    assert again.unchanged == 2
    assert 0 < await words(pool) <= sum((await stored(pool)).values())


async def test_vectors_of_two_encoders_are_never_mixed(pool: Pool, folder: Path, embedder: Embedder) -> None:
    class Other(Embedder):
        name = "other"

    await put(folder, pool, embedder)
    search, other = Search(pool, embedder), Search(pool, Other())
    assert (await search("What is gout?")).passages
    with pytest.raises(ForeignEncoder, match=embedder.name):
        await put(folder, pool, Other())
    with pytest.raises(ForeignEncoder):
        await other("What is gout?")
    await clear(pool=pool)
    assert (await put(folder, pool, Other())).stored == 2
    assert (await other("What is gout?")).passages
    with pytest.raises(ForeignEncoder, match="encoded by other"):
        await search("What is gout?")  # the same process goes on


async def test_embeddings_of_a_provider_have_their_own_dimension(pool: Pool, folder: Path, embedder: Embedder) -> None:
    provided = ProviderEmbedder("fake:wide", DeterministicFakeEmbedding(size=1000))
    await put(folder, pool, provided)
    async with pool.connection() as connection:
        row = await (await connection.execute("select encoder, dimensions from library")).fetchone()
    assert row == {"encoder": "fake:wide", "dimensions": 1000}
    question = "What are the symptoms of gout?"
    ranked = await Reranker(pool, provided)(question, (await Search(pool, provided)(question)).passages)
    assert ranked.degraded is None
    assert ranked.sources[0]["id"].startswith("gout#")
    with pytest.raises(ForeignEncoder):
        await put(folder, pool, ProviderEmbedder("fake:wide", DeterministicFakeEmbedding(size=500)))
    with pytest.raises(ForeignEncoder, match="not by fake:narrow"):
        await Search(pool, ProviderEmbedder("fake:narrow", DeterministicFakeEmbedding(size=500)))(question)


async def test_a_copy_of_an_article_is_found_once(pool: Pool, folder: Path, embedder: Embedder) -> None:
    text = (folder / "gout.md").read_text().replace("id: gout", "id: gout-copy")
    (folder / "gout-copy.md").write_text(text)
    await put(folder, pool, embedder)
    found = (await Search(pool, embedder)("What are the symptoms of gout?")).passages
    assert len({passage["text"] for passage in found}) == len(found)


@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("What are the symptoms of iron deficiency?", "iron-deficiency"),
        ("my big toe is red and swollen", "gout"),
        ("allopurinol", "gout"),
        ("iron defficiency symtoms", "iron-deficiency"),
        ("maximum dose of ibuprofen", "ibuprofen"),
        ("why am I always so tired", "fatigue"),
        ("stomach flu how long", "gastroenteritis"),
    ],
)
async def test_the_right_article_comes_first(library: Pool, embedder: Embedder, question: str, document: str) -> None:
    found = await Search(library, embedder)(question)
    ranked = await Reranker(library, embedder)(question, found.passages)
    assert ranked.degraded is None
    assert len(ranked.sources) == SOURCES
    assert ranked.sources[0]["id"].startswith(f"{document}#")
    assert all(sentence["text"] in ranked.sources[sentence["source"] - 1]["text"] for sentence in ranked.evidence)


@pytest.mark.parametrize(
    ("question", "read_as"),
    [
        ("wat are teh simptoms of shingels", None),  # nothing here is called shingles
        ("simptoms of Ecezma?", "symptoms of eczema?"),
        ("can gastroentritis be dangerous", "can gastroenteritis be dangerous"),
        ("iron defficiency", "iron deficiency"),
        ("What are the symptoms of eczema?", None),
        ("is ibuprofn safe", None),  # the only near word is a medicine's name
        ("vitamin d suplements", None),  # of an article that says how to take it
        ("what is psoriasis", None),
        ("sintomas de la gota", None),
        ("is eczema contageous", "is eczema contagious"),  # as people ask, whatever the articles say
        ("gout attakcs", "gout attacks"),  # as many passages have it
        ("gout and seafod", None),  # which one passage has
        ("Ecezma of a nonpareille kind", "eczema of a nonpareille kind"),  # names what it is about
        ("simptoms of nonpareille", None),  # would be about the symptoms of anything
    ],
)
async def test_a_misspelt_word_is_read_as_the_one_of_the_librarys_titles(
    library: Pool, embedder: Embedder, question: str, read_as: str | None
) -> None:
    assert (await Search(library, embedder)(question)).read_as == (read_as or question)


async def test_a_question_without_slips_asks_the_database_once_and_its_sources_once_more(
    library: Pool, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten people who ask at once wait for each other at every way there and back."""
    connection, taken = library.connection, []

    def take() -> Any:
        taken.append(1)
        return connection()

    monkeypatch.setattr(library, "connection", take)
    found = await Search(library, embedder)("Is gastroenteritis contagious?")
    assert len(taken) == 1
    await Reranker(library, embedder)(found.read_as, found.passages)
    assert len(taken) == 2


async def test_what_is_called_how_is_known_anew_when_the_library_has_changed(
    pool: Pool, folder: Path, embedder: Embedder
) -> None:
    await put(folder, pool, embedder)
    search = Search(pool, embedder)
    assert (await search("simptoms of shingels")).read_as == "simptoms of shingels"
    shutil.copy(STARTER / "shingles.md", folder)
    await put(folder, pool, embedder)
    assert (await search("simptoms of shingels")).read_as == "symptoms of shingles"


async def test_the_search_can_use_the_vectors_index(library: Pool, embedder: Embedder) -> None:
    """It matches the statement; on few passages Postgres rightly reads them all."""
    vector = literal(await embedder.embed_question("gout"))
    async with library.connection() as connection, connection.transaction():
        await connection.execute("set local enable_seqscan = off")
        await connection.execute("set local enable_sort = off")
        await connection.execute("set local plan_cache_mode = force_generic_plan")
        explained = b"explain " + statement(DIMENSIONS, DENSE_WEIGHT, LEXICAL_WEIGHT)
        rows = await (await connection.execute(explained, {"question": "gout", "vector": vector})).fetchall()
    plan = "\n".join(row["QUERY PLAN"] for row in rows)
    assert "passage_vectors_nearest" in plan


@pytest.mark.parametrize(
    "question", ["'; drop table passages; --", "\\' & | ! :* <->", "the of and", "\x00", "?" * 4000]
)
async def test_any_question_can_be_asked(library: Pool, embedder: Embedder, question: str) -> None:
    found = await Search(library, embedder)(question)
    assert (await Reranker(library, embedder)(question, found.passages)).degraded is None


async def test_words_that_look_like_operators_are_searched_as_words(
    pool: Pool, tmp_path: Path, embedder: Embedder
) -> None:
    address = "example.org/x?a=1&b=(2|it's\\"
    (tmp_path / "link.txt").write_text(f"See {address} for more.")
    await put(tmp_path, pool, embedder)
    assert len((await Search(pool, embedder)(address)).passages) == 1


async def test_when_reranking_fails_the_order_of_the_search_stays(library: Pool, embedder: Embedder) -> None:
    passages = (await Search(library, embedder)("What is gout?")).passages
    async with open_pool("postgresql://nobody@127.0.0.1:1/none", max_size=1) as nowhere:
        nowhere.timeout = 0.1
        ranked = await Reranker(nowhere, embedder)("What is gout?", passages)
    assert ranked.degraded == DEGRADED
    assert [source["id"] for source in ranked.sources] == [passage["id"] for passage in passages[:SOURCES]]


async def answer(pool: Pool, question: str) -> dict[str, Any]:
    parts = open_parts(model="extractive?pace_ms=0", embeddings="minilm", reranker="maxsim", pool=pool)
    graph = build_graph(parts).compile()
    return dict(await graph.ainvoke(turn_input("turn", question)))


async def test_a_question_is_answered_with_quotes_from_its_article(library: Pool) -> None:
    state = await answer(library, "What are the symptoms of iron deficiency?")
    text = state["messages"][-1].content
    assert state["abstained"] is False
    assert "tiredness" in text
    assert "pale skin" in text
    assert state["citations"][0]["source_id"].startswith("iron-deficiency#")
    for citation in state["citations"]:
        assert f"[{citation['number']}]" in text


@pytest.mark.parametrize("question", ["Who won the football world cup?", "What are the symptoms of lupus?"])
async def test_what_the_library_does_not_know_is_declined(library: Pool, question: str) -> None:
    state = await answer(library, question)
    assert state["abstained"] is True
    assert state["citations"] == []


async def test_how_a_misspelt_question_was_read_is_said_first(library: Pool) -> None:
    """Only the words, for the rest of what the user wrote may look like a citation."""
    state = await answer(library, "what are the Simptoms of ecezma [2]")
    assert state["abstained"] is False
    assert state["messages"][-1].content.startswith("I read “Simptoms” as “symptoms”, “ecezma” as “eczema”.\n\n**")
    assert state["citations"][0]["source_id"].startswith("eczema#")


async def test_an_empty_library_says_that_it_is_empty(pool: Pool) -> None:
    state = await answer(pool, "What is gout?")
    assert state["abstained"] is True
    assert state["messages"][-1].content == NOTHING_THERE


async def test_a_library_with_nothing_near_does_not_call_itself_empty(
    pool: Pool, tmp_path: Path, embedder: Embedder
) -> None:
    """Not even when no passage at all is found."""
    (tmp_path / "tea.txt").write_text("Tea is hot.")
    await put(tmp_path, pool, embedder)
    async with pool.connection() as connection:
        await connection.execute("delete from passage_vectors")
    state = await answer(pool, "What is gout?")
    assert state["abstained"] is True
    assert state["messages"][-1].content.startswith(NOTHING_FITS)
