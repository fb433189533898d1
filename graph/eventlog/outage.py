"""Says once that the database cannot be reached, and once that it can be again: an outage must not fill the log."""

import logging
import time


class Outage:
    """Of one of those that ask the database; `without` tells what does not happen meanwhile."""

    def __init__(self, logger: logging.Logger, without: str) -> None:
        self._logger, self._without = logger, without
        self._since: float | None = None

    def failed(self, error: BaseException) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self._logger.warning("database away, %s: %s", self._without, type(error).__name__)

    def over(self) -> None:
        if self._since is not None:
            self._logger.warning("database back after %.1f s", time.monotonic() - self._since)
            self._since = None
