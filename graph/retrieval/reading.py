"""Reads again while the database is away; whoever waits for it has a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
from psycopg_pool import PoolTimeout

READ_AGAIN_SECONDS = 0.25
AWAY = ("08", "57P", "53300")  # it stops, it starts, it has no place: SQLSTATEs. A lost connection has none

T = TypeVar("T")


async def read_again(read: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await read()
        except psycopg.errors.PipelineAborted:
            raise  # by a statement before it, which may well be wrong
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            if not (error.sqlstate or AWAY[0]).startswith(AWAY):
                raise
        await asyncio.sleep(READ_AGAIN_SECONDS)
