"""Token vectors, reduced for the table: fewer pieces, fewer dimensions, a byte each.

Without it a passage's are 70 KB, with it 14 KB, and the ranking is the same within what chance does (docs/decisions).
`token_projection.npy` holds the directions in which token vectors of medical texts differ most; see
tests/evaluation/projection.py, which made it.
"""

from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from graph.retrieval.embed import Encoded, Vectors, unit
from graph.retrieval.wordpiece import END, START, vocabulary

STEPS = 127  # of a component, which lies within ±1


class Reduced(NamedTuple):
    """`ends`: the row after each part's last piece."""

    packed: bytes
    ends: list[int]


def reduce(encoded: Encoded) -> Reduced:
    """Without the marks and the punctuation, which no question asks for."""
    said = [row for row, piece in enumerate(encoded.ids) if piece not in silent_pieces()]
    rows = np.searchsorted(said, encoded.ends).tolist()
    steps = np.clip(np.rint(project(encoded.tokens[said]) * STEPS), -127, 127)
    return Reduced(steps.astype(np.int8).tobytes(), rows)


def project(tokens: Vectors) -> Vectors:
    """Of length 1 again, so that a product of two is still a cosine."""
    projected: Vectors = unit(tokens @ _projection())
    return projected


def unpack(packed: bytes) -> Vectors:
    steps = np.frombuffer(packed, dtype=np.int8).reshape(-1, _projection().shape[1])
    unpacked: Vectors = np.multiply(steps, np.float32(1 / STEPS), dtype=np.float32)
    return unpacked


@cache
def silent_pieces() -> frozenset[int]:
    known = vocabulary().items()
    return frozenset(number for piece, number in known if piece in (START, END) or not any(map(str.isalnum, piece)))


@cache
def _projection() -> Vectors:
    with files(__package__).joinpath("token_projection.npy").open("rb") as file:
        loaded: Vectors = np.load(file, allow_pickle=False).astype(np.float32)
    return loaded
