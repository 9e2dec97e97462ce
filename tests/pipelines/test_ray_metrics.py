"""Metrics through Ray's own: a real run on a local Ray, and the endpoint that Prometheus would scrape.

Needs the metrics of `ray[default]` (the extra `cluster`).
"""

import re
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import ray

from pipelines.label import run_label
from pipelines.metrics import METRICS, OF_THE_COMMAND, REGIONS, Metric, MetricsObserver, tag_names
from pipelines.ray_metrics import RayMetrics
from pipelines.runner import Placement, RayConfig, RayEngine
from pipelines.watch import Observers, Queued, nothing_queued
from tests.pipelines.test_label_job import make_job
from tests.tiny.shards import write_shards

PATIENCE_S = 90.0
SAMPLE = re.compile(r"^(ray_ovsops_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


class QueueNotes:
    """An observer that keeps which queues were told of."""

    def __init__(self) -> None:
        self.queued: Queued = nothing_queued
        self.names: set[str] = set()

    def started(self, *, shards: int, done: int, queued: Queued = nothing_queued) -> None:
        self.queued = queued

    def part(self, *, images: int, spans: Mapping[str, Sequence[float]]) -> None:
        self.names |= self.queued().keys()

    def committed(self, commit: object) -> None:
        """Nothing to note."""

    def shard_failed(self, code: str) -> None:
        """Nothing to note."""


def scrape() -> list[tuple[str, dict[str, str], float]]:
    """Our samples at the endpoint of the local node."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return [
        (name, dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)), float(value))
        for name, labels, value in SAMPLE.findall(text)
    ]


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.usefixtures("local_ray")
def test_a_run_on_ray_is_seen_at_its_metrics_endpoint(tmp_path: Path) -> None:
    if ray.nodes()[0]["MetricsExportPort"] <= 0:
        pytest.skip("the extra `cluster` is not installed: this Ray has no metrics endpoint")
    write_shards(tmp_path / "in", num_shards=3, images_per_shard=7, broken_every=5)
    job = make_job(
        [str(tmp_path / "in" / "*.tar")],
        tmp_path / "out",
        segment_on=Placement(actors=1, num_cpus=0.5),
        encode_on=Placement(actors=1, num_cpus=0.5, blocks_at_once=1),
    )
    notes = QueueNotes()
    with RayEngine(RayConfig(block_mib=0.01), job.storage) as engine:
        observer = Observers(MetricsObserver([RayMetrics()], work="label", output=job.output), notes)
        images = run_label(job, engine, run="ray", observer=observer)["images"]
        assert notes.names == {"segment", "encode"}
        deadline = time.monotonic() + PATIENCE_S
        found: list[tuple[str, dict[str, str], float]] = []
        while time.monotonic() < deadline:
            found = [sample for sample in scrape() if sample[1].get("output") == job.output]
            if sum(value for name, _, value in found if name == "ray_ovsops_images_total") == images["read"]:
                break
            time.sleep(0.5)
    outcomes = {
        labels["outcome"]: value for name, labels, value in found if name == "ray_ovsops_images_total"
    }
    assert outcomes == {"labelled": images["labelled"], "failed": images["failed"]}  # nought is not told
    names = {name for name, _, _ in found}
    for metric in METRICS:
        if metric in (*OF_THE_COMMAND, REGIONS):
            continue
        if metric.kind == "gauge":  # gone 20 seconds after they were put
            continue
        assert published(metric) <= names, metric.name
    for name, labels, _ in found:
        (metric,) = [each for each in METRICS if name in published(each)]
        assert set(tag_names(metric)) <= labels.keys()
    assert {labels["stage"] for name, labels, _ in found if name == "ray_ovsops_stage_rows_total"} == {
        "segment",
        "encode",
        "write",
    }


def published(metric: Metric) -> set[str]:
    """Names at the endpoint."""
    ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    return {f"ray_{metric.name}{end}" for end in ends}
