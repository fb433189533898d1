"""What holds for every test that runs the log in its own process."""

import logging
from collections.abc import Iterator

import pytest


class _Unheard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        told = record.getMessage()
        if "never retrieved" in told and "async_generator_athrow" not in told:  # a loop that ends closes what is left
            self.told.append(told)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: who waits for a rival goes on waiting."""
    for name in ("log.LOCK_PATIENCE_ALONE", "writer.LOCK_PATIENCE", "writer.LOCK_PATIENCE_ALONE"):
        monkeypatch.setattr(f"graph.eventlog.{name}", "20s")
    monkeypatch.setattr("graph.eventlog.log.CANCEL_LOCK_TIMEOUT_SECONDS", 20)
    monkeypatch.setattr("graph.eventlog.log.RENEW_AGAIN_SECONDS", [0.02] * 500)


@pytest.fixture(autouse=True)
def no_failure_unheard() -> Iterator[None]:
    """A task or a future that fails without anybody ever asking is an error of the test that it happens in."""
    unheard = _Unheard()
    logging.getLogger("asyncio").addHandler(unheard)
    yield
    logging.getLogger("asyncio").removeHandler(unheard)
    assert not unheard.told
