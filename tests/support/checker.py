"""The laws of the log, checked from outside: plain rows of the tables and the bytes that readers were given.

It shares no code with the product: neither its types nor its fold nor its parser. What it once saw it remembers, so
that a row which changes, comes back or goes alone is found.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

ENDS = ("done", "cancelled", "error")
FRAME = re.compile(rb"id: (\d+)\nevent: (\w+)\ndata: ([^\n]*)\n\n")


class Row(NamedTuple):
    seq: int
    turn_id: str
    attempt: int
    type: str
    data: str

    @property
    def content(self) -> str:
        return content_of(self.type, self.data)


def content_of(kind: str, data: str) -> str:
    """A token's words, or the answer that an end carries."""
    told = json.loads(data)
    return str(told["message"]["content"] if kind == "done" else told["content"])


class TurnRow(NamedTuple):
    turn_id: str
    status: str
    attempt: int
    first_seq: int
    last_seq: int | None
    pruned: bool


class Folded(NamedTuple):
    """What a person should see: (role, content, status, turn) of each message, and the running turn's (id, text)."""

    messages: list[tuple[str, str, str, str]]
    running: tuple[str, str] | None
    last_seq: int


class History:
    """All that one session's log ever held. `holes` are seqs whose tokens were pruned before anybody saw them."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.gone: set[int] = set()
        self.holes: set[int] = set()

    @property
    def last_seq(self) -> int:
        return max(self.rows, default=0)

    def announced(self, row: Row) -> None:
        """A row that a writer says is committed."""
        self._remember(row)
        self.holes.discard(row.seq)

    def look(self, table: Sequence[Row], turns: Sequence[TurnRow]) -> None:
        """The session's rows and turns of one instant. Raises AssertionError where a law is broken."""
        by_turn = {turn.turn_id: turn for turn in turns}
        seqs = [row.seq for row in table]
        assert seqs == sorted(set(seqs)), f"law 2: seqs repeat or fall: {seqs}"
        assert not self.rows or (seqs and seqs[-1] >= self.last_seq), "law 2: the newest seq fell"
        for row in table:
            assert row.seq not in self.gone, f"law 9: {row} had been pruned and is back"
            self._remember(row)
        self._account_for_missing(set(seqs), by_turn)
        self._check_turns(by_turn)

    def _remember(self, row: Row) -> None:
        before = self.rows.setdefault(row.seq, row)
        assert before == row, f"law 2: a committed row changed: {before} → {row}"

    def _account_for_missing(self, present: set[int], turns: dict[str, TurnRow]) -> None:
        self.holes = set(range(1, self.last_seq)) - set(self.rows)
        for seq in self.holes:
            following = self.rows[min(s for s in self.rows if s > seq)]
            assert turns[following.turn_id].pruned, f"law 2: {seq} is missing and nothing was pruned there"
        missing = {row for seq, row in self.rows.items() if seq not in present}
        for row in missing:
            assert row.type == "token", f"law 9: {row} is gone, and it is no token"
            assert turns[row.turn_id].pruned, f"law 9: a token of a turn that is not pruned is gone: {row}"
        self.gone = {row.seq for row in missing}
        for turn in turns.values():
            if turn.pruned:
                left = [row for row in self._of(turn.turn_id) if row.type == "token" and row.seq in present]
                assert not left, f"law 9: tokens of a pruned turn are left: {left}"

    def _of(self, turn_id: str) -> list[Row]:
        return [self.rows[seq] for seq in sorted(self.rows) if self.rows[seq].turn_id == turn_id]

    def _check_turns(self, turns: dict[str, TurnRow]) -> None:
        order = [row.turn_id for row in (self.rows[seq] for seq in sorted(self.rows))]
        changes = [turn_id for n, turn_id in enumerate(order) if n == 0 or order[n - 1] != turn_id]
        assert len(changes) == len(set(changes)), "law 2: two turns are mixed"
        assert set(changes) == set(turns), "law 8: turns and events differ"
        for turn_id in changes:
            self._check_turn(turns[turn_id], self._of(turn_id))
        active = [turn for turn in turns.values() if turn.status in ("queued", "running")]
        assert not active or [turn.turn_id for turn in active] == changes[-1:], f"more turns than one run: {active}"

    def _check_turn(self, turn: TurnRow, rows: list[Row]) -> None:
        first, last = rows[0], rows[-1]
        assert (first.type, first.attempt, first.seq) == ("turn_started", 0, turn.first_seq)
        assert [row.type for row in rows].count("turn_started") == 1
        for before, after in pairwise(rows):
            assert before.attempt <= after.attempt, f"law 3: a stale attempt wrote {after} after {before}"
            opens = after.attempt > max(before.attempt, 1) and after.type not in ENDS
            assert opens == (after.type == "reset"), f"law 3: attempt {after.attempt} begins with {after}"
        assert last.attempt <= turn.attempt, f"law 3: {last} is newer than the turn: {turn}"
        ends = [row for row in rows if row.type in ENDS]
        assert len(ends) <= 1, f"law 4: {ends}"
        if not ends:
            assert turn.status in ("queued", "running"), f"law 4: {turn} has ended without an end"
            return
        assert ends == [last], f"law 4: something follows the end: {rows}"
        assert (turn.status, turn.last_seq) == (last.type, last.seq), f"law 4: {turn} does not tell of {last}"
        if self.holes.isdisjoint(range(turn.first_seq, last.seq)):
            assert last.content == text(rows[:-1]), f"law 5: the end carries another text: {last}"

    def check_reader(self, start: int, frames: Iterable[bytes]) -> int:
        """What one reader was given since `start`; gives its cursor."""
        cursor = start
        for frame in frames:
            parsed = FRAME.fullmatch(frame)
            assert parsed, f"this is not one frame: {frame!r}"
            seq = int(parsed[1])
            row = self.rows.get(seq)
            assert row is not None, f"law 1: {seq} was shown, and no such row was ever committed"
            assert (row.type.encode(), row.data.encode()) == parsed.groups()[1:], f"law 2: another frame than {row}"
            assert seq > cursor, f"law 2: {seq} came after {cursor}"
            if seq > cursor + 1:
                skipped = set(range(cursor + 1, seq))
                assert row.type != "token", f"law 9: a jump from {cursor} to the token {seq}"
                assert skipped <= self.gone | self.holes, f"law 2: {skipped - self.gone} were left out"
            cursor = seq
        return cursor

    def fold(self, last_seq: int) -> Folded:
        """Another fold than the product's, up to `last_seq`: messages by turn, the running turn's words."""
        turns: dict[str, list[Row]] = defaultdict(list)
        for seq in sorted(self.rows):
            if seq <= last_seq:
                turns[self.rows[seq].turn_id].append(self.rows[seq])
        replaced = {json.loads(rows[0].data).get("replaces") for rows in turns.values()}
        messages: list[tuple[str, str, str, str]] = []
        running = None
        for turn_id, rows in turns.items():
            shown: list[tuple[str, str, str, str]] = [
                ("user", json.loads(rows[0].data)["message"], "complete", turn_id)
            ]
            if rows[-1].type in ENDS:
                status = "complete" if rows[-1].type == "done" else rows[-1].type
                shown.append(("assistant", rows[-1].content, status, turn_id))
            else:
                running = (turn_id, text(rows))
            messages += [] if turn_id in replaced else shown
        return Folded(messages, running, max((seq for seq in self.rows if seq <= last_seq), default=0))


def text(rows: Sequence[Row]) -> str:
    """A turn's tokens after its last reset."""
    resets = [n for n, row in enumerate(rows) if row.type == "reset"]
    return "".join(row.content for row in rows[resets[-1] if resets else 0 :] if row.type == "token")


def told(snapshot: dict[str, Any]) -> Folded:
    """A snapshot as `GET /sessions/{id}` gives it, in the checker's words."""
    messages = [(m["role"], m["content"], m["status"], str(m["turn_id"])) for m in snapshot["messages"]]
    turn = snapshot["turn"]
    return Folded(messages, turn and (str(turn["turn_id"]), turn["content"]), snapshot["last_seq"])
