"""What is done from time to time by anyone: pruning the tokens of turns that ended long ago."""

from graph.eventlog.log import Log

TURNS_A_BATCH = 100
PRUNE_AGE_MIN_SECONDS = 600  # far above any retry of an append


async def sweep(log: Log, age_seconds: float) -> int:
    """A batch of turns at a time, each turn's tokens all at once (law 9); gives how many turns were pruned."""
    if age_seconds < PRUNE_AGE_MIN_SECONDS:
        raise ValueError(f"Turns must have ended {PRUNE_AGE_MIN_SECONDS // 60} minutes ago or more before pruning.")
    total = 0
    while pruned := await log.prune(age_seconds, TURNS_A_BATCH):
        total += pruned
    return total
