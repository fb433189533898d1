"""What is claimed of the price of durability, each way at its own best number of turns, and whether it was met."""

from math import nan
from typing import NamedTuple

from loadtests.compare.contestants import BEST, DURABLE, VOLATILE, Measured

Found = dict[tuple[int, str], Measured]  # by turns at once and way


class Claim(NamedTuple):
    """`aim` bounds the ratio of ours to theirs, from below or from above; "" for one that is only told."""

    mode: str
    what: str
    ours: float
    theirs: float
    aim: str

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def missed(self) -> bool:
        """What is only told cannot be."""
        return (self.aim == "≥ 1" and not self.ratio >= 1) or (self.aim == "≤ 1" and not self.ratio <= 1)

    def row(self) -> tuple[object, ...]:
        met = "" if not self.aim else "NOT MET" if self.missed else "met"
        return (self.mode, self.what, self.ours, self.theirs, f"{self.ratio:.2f}", self.aim, met)


def claims(everything: dict[str, Found]) -> list[Claim]:
    """Rows whose reader was too busy are passed over. Where none is left nothing is known, and the aim is missed."""
    found = []
    for mode, rows in everything.items():
        ways = {way: [m for (_, of), m in rows.items() if of == way and m.valid] for way in (DURABLE, VOLATILE, BEST)}
        for against in (VOLATILE, BEST):
            if not {DURABLE, against} <= {way for _, way in rows}:
                continue
            aimed = against == VOLATILE
            if mode == "saturated":
                ours, theirs = (max((m.tokens_a_second for m in ways[way]), default=nan) for way in (DURABLE, against))
                found.append(Claim(mode, f"tokens/s ÷ {against}", ours, theirs, "≥ 1" if aimed else ""))
            ours, theirs = (min((m.whole_cpu for m in ways[way]), default=nan) for way in (DURABLE, against))
            found.append(Claim(mode, f"CPU µs/token ÷ {against}", ours, theirs, "≤ 1" if aimed else ""))
    return found
