"""Line plots as SVG, for reports that are one file and need no network."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 300, 64, 42, 30
LEGEND_WIDTH = 150
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
Point = tuple[float, float]


class Axis(NamedTuple):
    """Without a unit of its own when `label` says it."""

    label: str
    log: bool = False

    def place(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, low: float, high: float) -> list[float]:
        """About five round values between low and high, which are places."""
        if self.log:
            return [10.0**n for n in range(math.floor(low), math.ceil(high) + 1) if low - 0.01 <= n <= high + 0.01]
        step = 10 ** math.floor(math.log10((high - low) / 4 or 1))
        step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
        return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def lines(
    title: str, x: Axis, y: Axis, series: Mapping[str, Sequence[Point]], limits: Mapping[str, float] | None = None
) -> str:
    """`limits` are dashed vertical lines at an x. What a log axis cannot show is left out."""
    shown = {name: _placed(points, x, y) for name, points in series.items()}
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return ""
    marks = {name: x.place(value) for name, value in (limits or {}).items()}
    xs = [p[0] for points in shown.values() for p in points] + list(marks.values())
    ys = [p[1] for points in shown.values() for p in points] + ([] if y.log else [0.0])
    frame = _Frame(min(xs), max(xs), min(ys), max(ys))
    parts = [f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>', *_grid(frame, x, y)]
    for n, (name, points) in enumerate(shown.items()):
        colour = COLOURS[n % len(COLOURS)]
        path = " ".join(f"{frame.x(px):.1f},{frame.y(py):.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += [
            f'<circle cx="{frame.x(px):.1f}" cy="{frame.y(py):.1f}" r="2.4" fill="{colour}"/>'
            for px, py in (points if len(points) < 12 else ())
        ]
        parts.append(
            f'<text x="{WIDTH + 10}" y="{TOP + 14 + 16 * n}" fill="{colour}" class="name">{escape(name)}</text>'
        )
    for name, at in marks.items():
        parts.append(
            f'<line x1="{frame.x(at):.1f}" x2="{frame.x(at):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="limit"/>'
            f'<text x="{frame.x(at) + 3:.1f}" y="{TOP + 10}">{escape(name)}</text>'
        )
    return f'<svg viewBox="0 0 {WIDTH + LEGEND_WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _placed(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    return [
        (x.place(px), y.place(py))
        for px, py in points
        if not math.isnan(py) and (px > 0 or not x.log) and (py > 0 or not y.log)
    ]


class _Frame:
    def __init__(self, x0: float, x1: float, y0: float, y1: float) -> None:
        self.x0, self.x1, self.y0, self.y1 = x0, x1 if x1 > x0 else x0 + 1, y0, y1 if y1 > y0 else y0 + 1

    def x(self, place: float) -> float:
        return LEFT + (place - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT)

    def y(self, place: float) -> float:
        return HEIGHT - BOTTOM - (place - self.y0) / (self.y1 - self.y0) * (HEIGHT - BOTTOM - TOP)


def _grid(frame: _Frame, x: Axis, y: Axis) -> list[str]:
    parts = []
    for value in x.ticks(frame.x0, frame.x1):
        at = frame.x(x.place(value))
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{value:,g}</text>')
    for value in y.ticks(frame.y0, frame.y1):
        at = frame.y(y.place(value))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:,g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escape(y.label)}</text>'
    )
    return parts
