"""The checker itself: it finds nothing wrong in a good log, and names each damage, one at a time."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from tests.faults.checker import Row, Tables, TurnRow, violations
from tests.faults.people import Asked, Crowd, Got, Reading

ANSWER = "w0 w1 w2 "
SESSION, FIRST, SECOND, THIRD = (str(UUID(int=n)) for n in range(4))
DONE, CANCELLED, LAST = 7, 10, 13  # seqs of the three ends


class Kept:
    """What a campaign leaves, with a reader of each turn: one taken over and done, one cancelled, one done at once."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.add(FIRST, 0, "turn_started", message="one")
        self.add(FIRST, 1, "routed", agent="rag_agent")
        self.add(FIRST, 1, "token", content="w0 ")
        self.add(FIRST, 2, "reset", attempt=2)
        self.add(FIRST, 2, "token", content="w0 w1 ")
        self.add(FIRST, 2, "token", content="w2 ")
        self.add(FIRST, 2, "done", message={"content": ANSWER})
        self.add(SECOND, 0, "turn_started", message="two")
        self.add(SECOND, 1, "token", content="w0 ")
        self.add(SECOND, 2, "cancelled", content="w0 ")
        self.add(THIRD, 0, "turn_started", message="three")
        self.add(THIRD, 1, "token", content=ANSWER)
        self.add(THIRD, 1, "done", message={"content": ANSWER})
        self.turns = {
            FIRST: TurnRow(SESSION, FIRST, "first", "done", 2, 0, 1, DONE),
            SECOND: TurnRow(SESSION, SECOND, "second", "cancelled", 2, 0, DONE + 1, CANCELLED),
            THIRD: TurnRow(SESSION, THIRD, "third", "done", 1, 0, CANCELLED + 1, LAST),
        }
        said = [("one", ANSWER, "complete"), ("two", "w0 ", "cancelled"), ("three", ANSWER, "complete")]
        self.spoken = [spoken for asked, text, _ in said for spoken in (("user", asked), ("assistant", text))]
        self.crowd = Crowd([], seed=0)
        self.crowd.asked = [self._asked(turn) for turn in self.turns.values()]
        self.crowd.cancels = [(SESSION, SECOND, "cancelled", CANCELLED)] * 2
        self.messages = [
            {"turn_id": turn_id, "role": role, "content": content, "status": status}
            for turn_id, (asked, text, end) in zip(self.turns, said, strict=True)
            for role, content, status in (("user", asked, "complete"), ("assistant", text, end))
        ]
        self.crowd.snapshots = {SESSION: {"messages": self.messages, "turn": None, "last_seq": LAST}}

    def add(self, turn_id: str, attempt: int, kind: str, /, **data: Any) -> None:
        self.rows.append(Row(SESSION, len(self.rows) + 1, turn_id, attempt, kind, json.dumps(data)))

    def _asked(self, turn: TurnRow) -> Asked:
        rows = [row for row in self.rows if row.turn_id == turn.turn_id]
        frames = [Got(row.seq, row.type, row.data.encode(), 0.0, 0) for row in rows]
        after = turn.first_seq - 1
        asked = Asked(SESSION, turn.request_id, "asked", None, turn.turn_id, after, {(SESSION, turn.turn_id, after)})
        asked.readings = [Reading(SESSION, after, 0.0, frames, connections=1, finished=True)]
        return asked

    @property
    def reading(self) -> Reading:
        return self.crowd.asked[0].readings[0]

    def row(self, seq: int, **changes: Any) -> None:
        self.rows[seq - 1] = self.rows[seq - 1]._replace(**changes)

    def turn(self, turn_id: str, **changes: Any) -> None:
        self.turns[turn_id] = self.turns[turn_id]._replace(**changes)

    def violations(self) -> list[str]:
        tables = Tables({SESSION: self.rows}, {SESSION: list(self.turns.values())}, {SESSION: self.spoken})
        return violations(tables, self.crowd, ANSWER)


def test_a_good_log_and_its_readers_are_found_good() -> None:
    assert Kept().violations() == []


def hole(kept: Kept) -> None:
    del kept.rows[4]


def mixed_turns(kept: Kept) -> None:
    kept.row(DONE + 2, turn_id=FIRST)


def request_twice(kept: Kept) -> None:
    kept.turn(THIRD, request_id="second")


def second_done(kept: Kept) -> None:
    kept.add(THIRD, 1, "done", message={"content": ANSWER})
    kept.turn(THIRD, last_seq=LAST + 1)


def end_after_the_end(kept: Kept) -> None:
    kept.add(THIRD, 2, "cancelled", content=ANSWER)
    kept.turn(THIRD, status="cancelled", last_seq=LAST + 1)


def turn_left_running(kept: Kept) -> None:
    kept.turn(THIRD, status="running", last_seq=None)


def row_without_its_end(kept: Kept) -> None:
    kept.turn(THIRD, status="cancelled")


def token_unlike_the_answer(kept: Kept) -> None:
    kept.row(6, data=json.dumps({"content": "w3 "}))


def token_of_before_the_reset(kept: Kept) -> None:
    kept.row(4, type="routed")


def words_of_nobody(kept: Kept) -> None:
    kept.row(LAST - 1, data=json.dumps({"content": "other"}))
    kept.row(LAST, data=json.dumps({"message": {"content": "other"}}))


def answer_cut_short(kept: Kept) -> None:
    kept.row(LAST - 1, data=json.dumps({"content": "w0 "}))
    kept.row(LAST, data=json.dumps({"message": {"content": "w0 "}}))


def error_of_a_fault(kept: Kept) -> None:
    kept.row(LAST, type="error", data=json.dumps({"code": "graph_failed", "content": ANSWER}))
    kept.turn(THIRD, status="error")


def given_up_at_once(kept: Kept) -> None:
    kept.row(LAST, type="error", attempt=2, data=json.dumps({"code": "worker_lost", "content": ANSWER}))
    kept.turn(THIRD, status="error", attempt=2)


def stale_attempt(kept: Kept) -> None:
    kept.row(6, attempt=1)


def attempt_without_its_reset(kept: Kept) -> None:
    kept.row(LAST, attempt=2)


def attempt_too_many(kept: Kept) -> None:
    kept.turn(FIRST, attempt=4)


def cancel_of_nobody(kept: Kept) -> None:
    kept.crowd.cancels.clear()


def cancel_told_untruly(kept: Kept) -> None:
    kept.crowd.cancels[1] = (SESSION, SECOND, "done", CANCELLED)


def cancel_told_of_another_end(kept: Kept) -> None:
    kept.crowd.cancels[1] = (SESSION, SECOND, "cancelled", CANCELLED - 1)


def checkpoint_without_an_answer(kept: Kept) -> None:
    del kept.spoken[3]


def checkpoint_with_other_words(kept: Kept) -> None:
    kept.spoken[-1] = ("assistant", "w0 ")


def snapshot_with_other_words(kept: Kept) -> None:
    kept.messages[3]["content"] = "w0 w1 "


def snapshot_behind(kept: Kept) -> None:
    kept.crowd.snapshots[SESSION]["last_seq"] = LAST - 1


def snapshot_unread(kept: Kept) -> None:
    kept.crowd.snapshots.clear()


def other_bytes(kept: Kept) -> None:
    got = kept.reading.frames[2]
    kept.reading.frames[2] = got._replace(data=got.data + b" ")


def other_type(kept: Kept) -> None:
    kept.reading.frames[2] = kept.reading.frames[2]._replace(type="custom")


def frame_lost(kept: Kept) -> None:
    del kept.reading.frames[2]


def frame_repeated(kept: Kept) -> None:
    kept.reading.frames.insert(2, kept.reading.frames[2])


def reader_left(kept: Kept) -> None:
    kept.reading.finished = False


def question_with_two_turns(kept: Kept) -> None:
    kept.crowd.asked[0].answers.add((SESSION, THIRD, CANCELLED))


def question_without_a_turn(kept: Kept) -> None:
    kept.crowd.asked[0].request_id = "fourth"


def complaint(kept: Kept) -> None:
    kept.crowd.complaints.append("a person complained")


DAMAGES: dict[Callable[[Kept], None], str] = {
    hole: "the log's seqs are not 1, 2, 3",
    mixed_turns: "turns are mixed up in the log",
    request_twice: "one request, two turns",
    second_done: "done 2 times",
    end_after_the_end: "it has not one start and one end",
    turn_left_running: "was left running",
    row_without_its_end: "its row says",
    token_unlike_the_answer: "are not its answer",
    token_of_before_the_reset: "are not its answer",
    words_of_nobody: "'other' is not what the model said",
    answer_cut_short: "'w0 ' is not what the model said",
    error_of_a_fault: "no fault may end a turn so",
    given_up_at_once: "2 attempts, 0 handed back, then error",
    stale_attempt: "attempt 1 wrote token after attempt 2",
    attempt_without_its_reset: "attempt 2 wrote done after attempt 1",
    attempt_too_many: "4 attempts, 0 handed back, then done",
    cancel_of_nobody: "nobody cancelled",
    cancel_told_untruly: "a cancel was told done at 10, it was cancelled at 10",
    cancel_told_of_another_end: "a cancel was told cancelled at 9, it was cancelled at 10",
    checkpoint_without_an_answer: "the checkpoint's messages are not the log's",
    checkpoint_with_other_words: "the checkpoint's messages are not the log's",
    snapshot_with_other_words: "the snapshot does not tell what the log tells",
    snapshot_behind: "the snapshot does not tell what the log tells",
    snapshot_unread: "its snapshot was never read",
    other_bytes: "a reader was given [3] otherwise than the log has them",
    other_type: "a reader was given [3] otherwise than the log has them",
    frame_lost: "a reader was given [1, 2, 4, 5, 6, 7], the turn is 1 to 7",
    frame_repeated: "a reader was given [1, 2, 3, 3, 4, 5, 6, 7], the turn is 1 to 7",
    reader_left: "a reader was left without the end",
    question_with_two_turns: "one question was answered with 2 turns",
    question_without_a_turn: "a question that was taken has no turn",
    complaint: "a person complained",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_damage_is_named(damage: Callable[[Kept], None]) -> None:
    kept = Kept()
    damage(kept)
    found = kept.violations()
    assert any(DAMAGES[damage] in violation for violation in found), found
