"""Makes `graph/retrieval/token_projection.npy` anew: the directions in which token vectors differ most.

`python -m tests.evaluation.projection PATH…` with files as `pulseline ingest` reads them; the one in the package was
made of MedQuAD and the starter corpus. All token vectors in the tables are then made anew (raise ingest.ENCODING).
"""

import asyncio
import sys
from pathlib import Path

import numpy as np

from graph.retrieval import formats, tokens
from graph.retrieval.documents import Document
from graph.retrieval.embed import DIMENSIONS, Embedder
from graph.retrieval.ingest import STARTER

KEPT = 64
SAMPLE_PASSAGES = 4000


def main() -> None:
    files = [*sorted(STARTER.glob("*.md")), *map(Path, sys.argv[1:])]
    texts = [
        [f"{document.title}.", *passage.sentences]
        for file in files
        for document in formats.read(file, file.stem)
        if isinstance(document, Document)
        for passage in document.passages
    ]
    step = max(1, len(texts) // SAMPLE_PASSAGES)
    spread = asyncio.run(_spread(texts[::step]))
    strengths, directions = np.linalg.eigh(spread)
    kept = directions[:, ::-1][:, :KEPT]
    file = Path(tokens.__file__).with_name("token_projection.npy")
    np.save(file, kept.astype(np.float16))
    print(f"{file.name}: {KEPT} directions hold {strengths[::-1][:KEPT].sum() / strengths.sum():.0%} of the spread")


async def _spread(texts: list[list[str]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    embedder = Embedder()
    total = np.zeros((DIMENSIONS, DIMENSIONS))
    for start in range(0, len(texts), 64):
        for encoded in await embedder.encode(texts[start : start + 64]):
            total += encoded.tokens.T @ encoded.tokens
    return total


if __name__ == "__main__":
    main()
