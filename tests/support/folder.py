"""A temporary folder that an embedded Postgres can live in, also when root runs it under another account."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Others may go through it, and nothing of the Postgres in it is left elsewhere."""
    with tempfile.TemporaryDirectory(prefix="pulseline-") as name:
        Path(name).chmod(0o711)
        yield Path(name)
