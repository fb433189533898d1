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
