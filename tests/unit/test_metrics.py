"""The dashboard asks only for metrics that are there, and for all of them."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from functions.frames import encode
from functions.metrics import TIMED_EVERY, Delivery
from graph import measures
from graph.eventlog.events import Event, encode_data, timestamp
from graph.eventlog.hub import Frame

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


def test_one_delivery_in_so_many_is_timed_its_first_news_among_them() -> None:
    """Heartbeats are none."""
    sample, delivery = "pulseline_delivery_lag_seconds_count", Delivery()
    before = REGISTRY.get_sample_value(sample) or 0
    stamp = timestamp(datetime.now(UTC) + timedelta(seconds=1))  # not older than the response
    token = Event(uuid4(), 1, uuid4(), 1, "token", encode_data({"content": "Iron"}, stamp))
    old = token._replace(data=encode_data({"content": "Iron"}, timestamp(datetime.now(UTC) - timedelta(seconds=1))))
    for _ in range(2 * TIMED_EVERY):
        delivery.sent([Frame(1, False, encode(old))])  # what it catches up with
    for _ in range(2 * TIMED_EVERY + 1):
        delivery.sent([])
        delivery.sent([Frame(1, False, encode(token))])
    assert (REGISTRY.get_sample_value(sample) or 0) - before == 3
