"""What can go wrong with the log. A class's docstring is its message; `functions/errors.py` maps it to HTTP."""


class LogError(Exception):
    """The event log failed."""

    code = "log_failed"

    def __str__(self) -> str:
        return super().__str__() or (type(self).__doc__ or "").strip()


class SessionNotFound(LogError):
    """There is no such session of yours."""

    code = "session_not_found"


class SessionBusy(LogError):
    """This session is still answering. Wait for the answer to end, or stop it, and send again."""

    code = "session_busy"


class NotTheLastTurn(LogError):
    """Only the session's last turn can be replaced. Load the session again and pick its last turn."""

    code = "not_the_last_turn"


class TooManyTurns(LogError):
    """You have asked for too much at once. Wait a little and ask again."""

    code = "rate_limited"

    def __init__(self, active: int, seconds: float | None) -> None:
        """`active` turns of the owner have not ended; `seconds` until the owner's minute is over, if it is full."""
        super().__init__()
        self.active, self.seconds = active, seconds


class TurnNotFound(LogError):
    """This session has no such turn."""

    code = "turn_not_found"


class NotInterrupted(LogError):
    """Nothing waits for an answer here. Send a message, not a command."""

    code = "not_interrupted"


class BadCursor(LogError):
    """The cursor is no place in this session's log. Load the session and tail on after its last_seq."""

    code = "bad_cursor"


class Fenced(LogError):
    """Another attempt, or an end, has taken this turn: nothing of this attempt is written any more."""

    code = "fenced"


class DatabaseUnavailable(LogError):
    """The database cannot be reached. Check that Postgres runs and that DATABASE_URL is right."""

    code = "database_unavailable"


class TurnLocked(DatabaseUnavailable):
    """Somebody holds this turn's row. Try again soon."""
