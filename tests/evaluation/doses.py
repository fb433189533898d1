"""Can every dose of a corpus be quoted? `python -m tests.evaluation.doses PATH…` with files as `pulseline ingest` reads
them. Exits 1 when the filter changes a sentence that is quoted with its own passage as the source."""

import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import click

from graph.doses import DoseFilter, amounts
from graph.retrieval import formats
from graph.retrieval.documents import Document, Passage

EXAMPLES = 10


class Quoted(NamedTuple):
    said: str
    shown: str
    has_dose: bool


def quotations(passage: Passage) -> Iterator[Quoted]:
    """Its sentences as an answer says them, each with its citation."""
    doses = DoseFilter([passage.text])
    for sentence in passage.sentences:
        said = f"{sentence} [1]\n\n"
        yield Quoted(said, doses.feed(said) + doses.rest(), any(amount.is_dose for amount in amounts(sentence)))


def passages(file: Path) -> Iterator[Passage]:
    found = formats.read(file, file.stem)
    return chain.from_iterable(document.passages for document in found if isinstance(document, Document))


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--seconds", default=600, show_default=True, help="Stop after so long.")
def main(files: tuple[Path, ...], seconds: int) -> None:
    """Quote every dose in these files."""
    deadline, tried, read = time.monotonic() + seconds, 0, 0
    changed: list[Quoted] = []
    for passage in chain.from_iterable(map(passages, files)):
        if time.monotonic() > deadline:
            print(f"stopped after {seconds} s")
            break
        read += 1
        for one in quotations(passage):
            tried += one.has_dose
            changed += [one] if one.said != one.shown else []
    for one in changed[:EXAMPLES]:
        print(f"said:  {one.said.strip()}\nshown: {one.shown.strip()}\n")
    print(f"{read} passages, {tried} sentences with a dose, {len(changed)} cannot be quoted as they are")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
