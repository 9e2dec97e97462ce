"""The Grafana dashboard asks only for metrics and labels that exist: ours, and those in Ray's own dashboards."""

import json
import re
from collections.abc import Iterator
from importlib import resources
from itertools import combinations
from typing import Any

import pytest

from pipelines.metrics import METRICS, OF_THE_COMMAND, Metric, tag_names
from tests.infra.objects import INFRA

DASHBOARD = INFRA / "grafana" / "ovsops.json"
SOURCES = ("ray_ovsops", "ovsops")
PROMETHEUS_LABELS = {"le", "instance", "job"}
"""Of buckets, and of whatever is scraped."""
KEYWORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "offset", "bool"}


def of_ray() -> frozenset[str]:
    """Names that Ray asks for in the dashboards it ships."""
    folder = resources.files("ray.dashboard.modules.metrics.dashboards")
    texts = [path.read_text() for path in folder.iterdir() if path.name.endswith("_panels.py")]
    return frozenset(name for text in texts for name in re.findall(r"\bray_[a-z0-9_]+", text))


def published(metric: Metric) -> set[str]:
    """What a metric becomes in the exposition format, from both sources."""
    ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    prefixes = ("",) if metric in OF_THE_COMMAND else ("", "ray_")
    return {f"{prefix}{metric.name}{end}" for prefix in prefixes for end in ends}


OURS = {name: metric for metric in METRICS for name in published(metric)}


def load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    """Every query of panels and variables, for each value of the variable `source`."""
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            texts.append(re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"]))
    for text in texts:
        for source in SOURCES:
            yield text.replace("${source}", source)


def names_and_labels(expression: str) -> tuple[set[str], set[str]]:
    """Metric names and label names of a PromQL expression."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    labels = {
        label for inside in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"(\w+)\s*[=!]", inside)
    }
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    for group in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", bare):
        labels |= set(re.findall(r"\w+", group))
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()", bare)
    return {word for word in words if word not in KEYWORDS}, labels


def wrong(dashboard: dict[str, Any]) -> set[str]:
    """Names that nobody publishes, and labels that our metrics do not have."""
    found = set()
    rays = of_ray()
    for expression in expressions(dashboard):
        names, labels = names_and_labels(expression)
        found |= {name for name in names if name not in OURS and name not in rays}
        for name in names & OURS.keys():
            known = set(tag_names(OURS[name])) | PROMETHEUS_LABELS
            found |= {f"{name}: {label}" for label in labels - known}
    return found


def test_every_name_and_label_exists() -> None:
    assert len(of_ray()) > 100
    assert wrong(load()) == set()


@pytest.mark.parametrize(
    ("right", "other", "says"),
    [
        ("_images_total", "_pictures_total", "ovsops_pictures_total"),
        ("by (code)", "by (reason)", "ovsops_left_out_total: reason"),
        ("ray_node_gpus_utilization", "ray_node_gpu_utilisation", "ray_node_gpu_utilisation"),
        ("_part_seconds_bucket", "_part_seconds", "ovsops_part_seconds"),
    ],
)
def test_a_wrong_one_is_found(right: str, other: str, says: str) -> None:
    text = DASHBOARD.read_text()
    assert right in text
    assert says in wrong(json.loads(text.replace(right, other)))


def test_every_metric_of_ours_is_shown() -> None:
    shown = {name for expression in expressions(load()) for name in names_and_labels(expression)[0]}
    assert [metric.name for metric in METRICS if not published(metric) & shown] == []


def test_grafana_can_place_the_panels() -> None:
    dashboard = load()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    areas = {
        panel["title"]: {
            (x, y)
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        }
        for panel in panels
    }
    assert all(x < 24 for area in areas.values() for x, _ in area)
    assert [pair for pair in combinations(areas, 2) if areas[pair[0]] & areas[pair[1]]] == []
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", DASHBOARD.read_text()))
    assert used - {"__rate_interval", "__range", "__all"} == variables


def test_names_in_parts_of_an_expression() -> None:
    text = 'sum by (a, b) (rate(x_total{c=~"d|e",f!="g"}[5m])) / on (h) histogram_quantile(0.5, y_bucket) or time() - z'
    assert names_and_labels(text) == ({"x_total", "y_bucket", "z"}, {"a", "b", "c", "f", "h"})
