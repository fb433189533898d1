"""Reports: one HTML file with plots that needs no network, and the same figures as JSON."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

OUT = Path(".cache/load")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1480px; margin: 2rem auto; padding: 0 1rem; color: #1f2937 }
h2 { margin-top: 2.5rem; border-top: 1px solid #d1d5db; padding-top: 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; border-bottom: 1px solid #e5e7eb }
td { text-align: right; font-variant-numeric: tabular-nums } td:first-child, th { text-align: left }
.missed td { background: #fee2e2 } .plots { display: flex; flex-wrap: wrap; gap: 1rem } .plots svg { width: 700px }
svg text { font: 11px system-ui, sans-serif; fill: #4b5563 } svg .title { font-size: 14px; fill: #111827 }
svg .grid { stroke: #e5e7eb } svg .limit { stroke: #111827; stroke-dasharray: 4 3 } svg .name { font-weight: 600 }
pre { white-space: pre-wrap; background: #f3f4f6; padding: .6rem }
"""


def machine() -> dict[str, Any]:
    """Where and when it was measured. Figures of another machine say nothing about this one; ratios may."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


def table(head: Sequence[str], rows: Iterable[tuple[Sequence[object], bool]]) -> str:
    """Each row with whether it is marked."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr{' class=missed' if marked else ''}>{''.join(f'<td>{escape(_text(cell))}</td>' for cell in row)}</tr>"
        for row, marked in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:,.3g}"
    return str(cell)


def plots(*drawn: str) -> str:
    return f'<div class="plots">{"".join(drawn)}</div>'


def facts(said: dict[str, Any]) -> str:
    return table(("", ""), [((name.replace("_", " "), value), False) for name, value in said.items()])


def keep(name: str, scenario: str, runs: dict[int, dict[str, dict[str, float]]]) -> None:
    """OUT/name.json, for `make targets`: metrics by number of people."""
    OUT.mkdir(parents=True, exist_ok=True)
    found = [{"scenario": scenario, "users": users, "metrics": metrics} for users, metrics in runs.items()]
    (OUT / f"{name}.json").write_text(json.dumps({**machine(), "runs": found}, indent=1))


def write(out: Path, name: str, title: str, body: Sequence[str], data: dict[str, Any]) -> Path:
    """OUT/name.html and OUT/name.json; gives the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(data, indent=1))
    page = out / f"{name}.html"
    page.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{escape(title)}</h1>{''.join(body)}</html>"
    )
    return page
