"""Loads a package's `queries.sql`: named blocks, each `-- name: x`, then its description, then one statement."""

import re
from collections.abc import Callable
from importlib.resources import files
from typing import LiteralString


def load(package: str) -> Callable[[str], LiteralString]:
    """Gives the function that knows the package's statements by name."""
    text = files(package).joinpath("queries.sql").read_text()
    blocks = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: _statement(body) for name, body in zip(blocks[::2], blocks[1::2], strict=True)}.__getitem__


def _statement(body: str) -> LiteralString:
    lines = [line for line in body.splitlines() if not line.startswith("--")]
    return "\n".join(lines).strip().removesuffix(";")


query = load("graph.eventlog")
