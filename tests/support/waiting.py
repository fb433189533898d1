"""For what nobody tells when it happens."""

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 20.0


async def until(holds: Callable[[], object], what: str = "it did not happen") -> None:
    """Looks again and again; fails with `what` when it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(what) from None
