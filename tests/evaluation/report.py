"""The report: one HTML file with tables and plots of its own, nothing from elsewhere. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from tests.evaluation.abstention import Fit, Point
from tests.evaluation.measures import MEASURES
from tests.evaluation.retrieval import Scores, Times

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #ccc;padding:.3rem .8rem;text-align:left}
svg{max-width:100%;height:auto}text{font:12px system-ui,sans-serif}"""
COLOURS = ("#888", "#2563eb", "#d97706", "#059669")
WIDTH, HEIGHT, LEFT = 640, 260, 130


def page(sections: Iterable[str]) -> str:
    body = "\n".join(sections)
    head = f'<meta charset="utf-8"><title>Pulseline: evaluation</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>Evaluation</h1>\n{body}</body></html>\n'


def section(title: str, *parts: str) -> str:
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(parts)


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def bars(scores: Sequence[Scores]) -> str:
    """nDCG@10 of each system with its confidence interval."""
    step = (HEIGHT - 40) / len(scores)
    drawn = [_axis()]
    for number, (one, colour) in enumerate(zip(scores, COLOURS, strict=False)):
        value, y = one.measures["nDCG@10"], 15 + number * step
        drawn.append(f'<text x="{LEFT - 8}" y="{y + step / 2}" text-anchor="end">{escape(one.system)}</text>')
        drawn.append(
            f'<rect x="{LEFT}" y="{y + 4:.1f}" width="{_x(value.mean) - LEFT:.1f}" height="{step - 12:.1f}" '
            f'fill="{colour}" opacity=".75"/>'
        )
        middle = y + step / 2 - 2
        drawn.append(
            f'<line x1="{_x(value.low):.1f}" x2="{_x(value.high):.1f}" y1="{middle:.1f}" y2="{middle:.1f}" '
            'stroke="#000" stroke-width="2"/>'
        )
    return _svg("nDCG@10 with 95 % confidence intervals", drawn)


def trade(curves: Mapping[str, Sequence[Point]], chosen: float) -> str:
    """False abstentions to the right, false answers upwards."""
    drawn = [_axis(), f'<text x="{WIDTH - 10}" y="{HEIGHT - 25}" text-anchor="end">false abstentions</text>']
    drawn.append(f'<text x="{LEFT - 8}" y="20" text-anchor="end">false answers</text>')
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[1 + number]
        line = " ".join(f"{_x(one.false_abstentions):.1f},{_y(one.false_answers):.1f}" for one in points)
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        here = min(points, key=lambda one: abs(one.threshold - chosen))
        drawn.append(
            f'<circle cx="{_x(here.false_abstentions):.1f}" cy="{_y(here.false_answers):.1f}" r="5" fill="{colour}"/>'
        )
        drawn.append(f'<text x="{WIDTH - 130}" y="{30 + 18 * number}" fill="{colour}">{escape(name)}</text>')
    return _svg(f"false answers against false abstentions; dots: the threshold {chosen}", drawn)


def scores_table(scores: Sequence[Scores]) -> str:
    rows = [[one.system, *(str(one.measures[m]) for m in MEASURES), str(one.gain)] for one in scores]
    return table(["system", *MEASURES, "nDCG@10 beyond dense (paired)"], rows)


def times_table(times: Sequence[Times]) -> str:
    rows = []
    for one in times:
        (r50, k50), (r95, k95) = one.p(0.5), one.p(0.95)
        rows.append([str(one.people), f"{r50:.0f}", f"{r95:.0f}", f"{k50:.0f}", f"{k95:.0f}"])
    return table(["people at once", "retrieval p50 ms", "p95", "reranking p50 ms", "p95"], rows)


def errors_table(errors: Sequence[Fit]) -> str:
    rows = [[one.question.text, " ".join(sorted(one.question.relevant)) or "–", f"{one.fit:.3f}"] for one in errors]
    return table(["question", "answered by", "fit"], rows)


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - 10)


def _y(share: float) -> float:
    return HEIGHT - 20 - share * (HEIGHT - 40)


def _axis() -> str:
    marks = [0, 0.25, 0.5, 0.75, 1]
    return "".join(
        f'<line x1="{_x(m):.1f}" x2="{_x(m):.1f}" y1="10" y2="{HEIGHT - 20}" stroke="#ddd"/>'
        f'<text x="{_x(m):.1f}" y="{HEIGHT - 4}" text-anchor="middle">{m:g}</text>'
        for m in marks
    )


def _svg(title: str, drawn: Iterable[str]) -> str:
    body = "".join(drawn)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{escape(title)}">{body}'
        f"</svg><figcaption>{escape(title)}</figcaption></figure>"
    )
