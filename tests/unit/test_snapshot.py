"""The fold, held to the golden transcripts that the page's reducer is held to as well."""

from graph.eventlog.snapshot import apply, fold
from tests.support.transcripts import SESSION, TRANSCRIPTS, _answered, all_files, events


def test_the_golden_transcripts_are_what_translator_and_fold_give() -> None:
    """After a wanted change: python -m tests.support.transcripts, and read the diff."""
    for path, content in all_files().items():
        assert path.read_bytes() == content, path.name


def test_every_event_type_stands_in_a_transcript() -> None:
    from typing import get_args

    from graph.eventlog.events import StreamEvent

    types = {cls.model_fields["type"].default for cls in get_args(get_args(StreamEvent)[0])}
    seen = {event.type for make in TRANSCRIPTS.values() for event in events(make())}
    assert types - seen == {"custom"}


def test_folding_an_event_again_changes_nothing() -> None:
    log = events(_answered())
    once = fold(SESSION, log)
    twice = fold(SESSION, [event for event in log for _ in range(2)])
    for event in log:
        apply(twice, event)
    assert once == twice


def test_a_pruned_log_folds_to_the_same_messages() -> None:
    """Law 9: the terminal event carries the whole answer."""
    assert fold(SESSION, events(_answered(), pruned=True)).messages == fold(SESSION, events(_answered())).messages


def test_a_reset_forgets_the_tokens_and_keeps_the_finished_stages() -> None:
    log = events(TRANSCRIPTS["taken_over"]())
    at_reset = next(n for n, event in enumerate(log, 1) if event.type == "reset")
    turn = fold(SESSION, log[:at_reset]).turn
    assert turn is not None
    assert turn.content == ""
    assert [(stage.name, stage.state) for stage in turn.stages] == [("retrieval", "done"), ("reranking", "done")]
    assert len(turn.sources) == 1


def test_the_stages_stay_with_the_answer_and_say_what_was_found_and_how_long_each_took() -> None:
    """Each event of a transcript comes a tenth of a second after the one before; the writing ends with the answer."""
    log = events(_answered())
    answer = fold(SESSION, log).messages[-1]
    writing = next(event.seq for event in log if event.type == "generation_start")
    assert [(stage.name, stage.state, stage.passages or stage.sources) for stage in answer.stages] == [
        ("retrieval", "done", 2),
        ("reranking", "done", 1),
        ("generation", "done", None),
    ]
    assert answer.stages[-1].duration_ms == 100 * (log[-1].seq - writing)
    assert answer.timestamp == log[-1].parse().timestamp


def test_a_stage_under_way_when_its_turn_was_stopped_is_not_done() -> None:
    answer = fold(SESSION, events(TRANSCRIPTS["stopped"]())).messages[-1]
    assert [stage.state for stage in answer.stages] == ["done", "done", "stopped"]
