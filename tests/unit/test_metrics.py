"""The dashboard asks only for metrics that are there, and for all of them."""

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from graph import measures

DASHBOARD = Path(__file__).parents[2] / "infra" / "grafana" / "pulseline.json"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
NO_LABELS_BUT = {"status", "code"}


def metrics() -> list[MetricWrapperBase]:
    return [value for value in vars(measures).values() if isinstance(value, MetricWrapperBase)]


def series() -> dict[str, str]:
    """Every series' name, with its metric's."""
    return {
        family.name + suffix: family.name
        for metric in metrics()
        for family in metric.describe()
        for suffix in SUFFIXES[family.type]
    }


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_that_are_there_and_for_each_of_them() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = set(re.findall(r"\bpulseline_\w+", " ".join(expressions(dashboard["panels"]))))
    assert asked <= set(series())
    assert {series()[name] for name in asked} == set(series().values())


def test_every_panel_has_a_place_of_its_own_and_an_id() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert (
        len(places)
        == len({panel["id"] for panel in panels})
        == len({panel["title"] for panel in panels})
        == len(panels)
    )


def test_no_metric_has_a_label_that_grows_with_people_or_sessions() -> None:
    for metric in metrics():
        assert set(metric._labelnames) <= NO_LABELS_BUT, metric
