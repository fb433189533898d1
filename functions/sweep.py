"""What is done from time to time by anyone: pruning the tokens of old turns, erasing the sessions of long ago."""

from graph.eventlog.log import Log
from graph.eventlog.sessions import Sessions

TURNS_A_BATCH = 100
SESSIONS_A_BATCH = 100
DAY_SECONDS = 24 * 3600
PRUNE_AGE_MIN_SECONDS = 600  # far above any retry of an append


async def sweep(log: Log, age_seconds: float) -> int:
    """A batch of turns at a time, each turn's tokens all at once (law 9); gives how many turns were pruned.

    What was counted for limits that no longer bind is forgotten too.
    """
    if age_seconds < PRUNE_AGE_MIN_SECONDS:
        raise ValueError(f"Turns must have ended {PRUNE_AGE_MIN_SECONDS // 60} minutes ago or more before pruning.")
    await log.forget_starts()
    total = 0
    while pruned := await log.prune(age_seconds, TURNS_A_BATCH):
        total += pruned
    return total


async def expire(sessions: Sessions, days: float) -> int:
    """Erases, for good and as their owners would, the sessions in which nothing was asked for so many days."""
    total = 0
    while erased := await sessions.erase_older(days * DAY_SECONDS, SESSIONS_A_BATCH):
        total += erased
    return total
