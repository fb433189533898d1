"""What `pulseline serve` and `worker` import, for the process that they are forked from; no setting is read here."""

import gc

import click
import rich.console
import rich.progress
import uvloop

import functions.serve

gc.collect()
gc.freeze()  # else a child's first collection would copy all of it

__all__ = ["click", "functions", "rich", "uvloop"]
