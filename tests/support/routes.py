"""The app's own table of routes, so that no test needs a list of them that could miss a new one."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Every (method, path) that the app answers; HEAD goes with GET. A mount of files is (GET, its path/*)."""
    return set(_walk(app.routes, ""))


def _walk(found: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for route in found:
        if hasattr(route, "original_router"):
            yield from _walk(route.original_router.routes, prefix + route.include_context.prefix)
        elif hasattr(route, "methods"):
            yield from ((method, prefix + route.path) for method in route.methods - {"HEAD"})
        else:
            yield "GET", f"{prefix}{route.path}/*"
