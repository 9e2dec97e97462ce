"""Metrics: what a run counts, the text file, and that each name is one that Prometheus takes."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovsops.errors import ConfigError
from pipelines import metrics_file
from pipelines.label import run_label
from pipelines.metrics import (
    IMAGES,
    INSTANCES,
    METRICS,
    PART_SECONDS,
    QUEUED,
    REGIONS,
    RUN_TAGS,
    SHARDS_LEFT,
    Metric,
    MetricsObserver,
    tag_names,
)
from pipelines.metrics_file import MetricsFile
from pipelines.queues import by_step
from pipelines.runner import InlineEngine
from pipelines.spans import timed_as
from pipelines.units import UnitCommit
from pipelines.watch import Observers
from tests.pipelines.test_label_job import make_job
from tests.tiny.shards import write_shards

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (\S+)')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')


def samples(path: Path) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a reader of the exposition format finds in a file; every line must be one it knows."""
    found = {}
    for line in path.read_text().splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            continue
        match = SAMPLE.fullmatch(line)
        assert match is not None, line
        found[match[1], frozenset(LABEL.findall(match[2] or ""))] = float(match[3])
    return found


def value_of(path: Path, name: str, **tags: str) -> float:
    (found,) = [
        value
        for (each, labels), value in samples(path).items()
        if each == name and tags.items() <= set(labels)
    ]
    return found


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_tags_follow_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"ovsops_[a-z]+(_[a-z]+)*", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert bool(metric.boundaries) == (metric.kind == "histogram")
    assert list(metric.boundaries) == sorted(metric.boundaries)
    assert not {"job", "instance", "le"} & set(tag_names(metric))  # Prometheus' own
    assert "\n" not in metric.help


def test_a_run_counts_what_its_summary_says(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", num_shards=3, images_per_shard=7, broken_every=5)
    job = make_job([str(tmp_path / "in" / "*.tar")], tmp_path / "out")
    file = MetricsFile(tmp_path / "run.prom")
    observer = Observers(MetricsObserver([file], work="label", output=job.output))
    summary = run_label(job, InlineEngine(job.storage), run="test", observer=observer)
    file.finish(0)
    images = summary["images"]
    for outcome in ("labelled", "skipped", "failed"):
        assert value_of(file.path, "ovsops_images_total", outcome=outcome, work="label") == images[outcome]
    assert images["failed"] > 0
    assert value_of(file.path, "ovsops_left_out_total", code="E_TRUNCATED") == images["failed"]
    assert value_of(file.path, "ovsops_instances_total", output=job.output) == images["instances"]
    assert value_of(file.path, "ovsops_shards_total", outcome="committed") == 3
    assert value_of(file.path, "ovsops_shards_left") == 0
    assert value_of(file.path, "ovsops_stage_rows_total", stage="write") == 21
    assert value_of(file.path, "ovsops_stage_rows_total", stage="segment") == images["labelled"]
    assert 0 < value_of(file.path, "ovsops_stage_busy_seconds_total", stage="segment") < 60
    parts = value_of(file.path, "ovsops_part_seconds_count")
    assert parts >= 3
    assert value_of(file.path, "ovsops_part_seconds_bucket", le="+Inf") == parts
    assert value_of(file.path, "ovsops_exit_code") == 0
    assert value_of(file.path, "ovsops_finished_timestamp_seconds") == pytest.approx(time.time(), abs=60)
    assert (tmp_path / "run.prom").stat().st_mode & 0o044 == 0o044  # another user's exporter reads it
    assert [path.name for path in tmp_path.glob(".run*")] == []


def test_regions_of_unit_jobs_have_their_own_name(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "n.prom")
    observer = MetricsObserver([file], work="negatives", output="o", rows=REGIONS)
    observer.started(shards=3, done=1)
    observer.committed(
        UnitCommit(
            shard="s", name="a", url="u", size=1, tag="t", run="r", recipe_hash="h", retry=0, read=9, kept=6,
            left_out={"TOO_FEW": 3}, counts={}, sha256="", tables={},
        )
    )  # fmt: skip
    observer.shard_failed("E_STORAGE")
    file.write()
    assert value_of(file.path, "ovsops_regions_total", outcome="kept") == 6
    assert value_of(file.path, "ovsops_regions_total", outcome="left_out") == 3
    assert value_of(file.path, "ovsops_left_out_total", code="TOO_FEW") == 3
    assert value_of(file.path, "ovsops_shards_total", outcome="failed") == 1
    assert value_of(file.path, "ovsops_shards_left") == 0


def test_a_queue_that_empties_goes_to_nought(tmp_path: Path) -> None:
    waiting: dict[str, int] = {"segment": 5}
    file = MetricsFile(tmp_path / "q.prom")
    observer = MetricsObserver([file], work="label", output="o")
    observer.started(shards=1, done=0, queued=lambda: dict(waiting))
    observer.part(images=1, spans={})
    file.write()
    assert value_of(file.path, QUEUED.name, stage="segment") == 5
    waiting.clear()
    observer.part(images=1, spans={})
    file.write()
    assert value_of(file.path, QUEUED.name, stage="segment") == 0


def test_values_of_tags_are_escaped_and_secrets_are_not_in_them(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "e.prom")
    output = 's3://u:hunter22@b/a"b\\c\nd?X-Amz-Signature=abcdef'
    MetricsObserver([file], work="label", output=output).started(shards=1, done=0)
    file.write()
    text = file.path.read_text()
    assert r"a\"b\\c\nd?[redacted]" in text
    assert "hunter22" not in text
    assert "abcdef" not in text
    assert value_of(file.path, SHARDS_LEFT.name) == 1


def test_a_histogram_counts_its_bounds_inclusively_and_adds_up(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "h.prom")
    tags = dict.fromkeys(RUN_TAGS, "x")
    for seconds in (0.5, 0.6, 4000.0):
        file.observe(PART_SECONDS, seconds, tags)
    file.write()
    assert value_of(file.path, "ovsops_part_seconds_bucket", le="0.5") == 1
    assert value_of(file.path, "ovsops_part_seconds_bucket", le="1") == 2
    assert value_of(file.path, "ovsops_part_seconds_bucket", le="1800") == 2
    assert value_of(file.path, "ovsops_part_seconds_bucket", le="+Inf") == 3
    assert value_of(file.path, "ovsops_part_seconds_sum") == pytest.approx(4001.1)


def test_the_parser_of_prometheus_reads_the_file(tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="the extra `cluster` is not installed")
    file = MetricsFile(tmp_path / "p.prom")
    tags = {"work": "label", "output": 'a"\\\n'}
    file.add(IMAGES, 3, tags | {"outcome": "labelled"})
    file.observe(PART_SECONDS, 2, tags)
    families = {family.name: family for family in parser.text_string_to_metric_families(file.text())}
    assert families["ovsops_images"].samples[0].labels == tags | {"outcome": "labelled"}
    assert families["ovsops_part_seconds"].type == "histogram"


def test_a_place_that_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--metrics-file .*no/where\.prom: cannot be written"):
        MetricsFile(tmp_path / "no" / "where.prom")
    with pytest.raises(ConfigError, match=r"must end in \.prom"):
        MetricsFile(tmp_path / "metrics.txt")


def test_a_place_that_goes_away_is_said_once_and_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics_file, "WRITE_EVERY_S", 0.0)
    (tmp_path / "d").mkdir()
    file = MetricsFile(tmp_path / "d" / "m.prom")
    file.path.unlink()
    file.path.parent.rmdir()
    for _ in range(3):
        file.add(INSTANCES, 1, dict.fromkeys(RUN_TAGS, "x"))
    assert len(caplog.records) == 1
    file.path.parent.mkdir()
    file.add(INSTANCES, 1, dict.fromkeys(RUN_TAGS, "x"))
    assert value_of(file.path, INSTANCES.name) == 4


def test_the_file_is_written_every_few_seconds_and_not_for_every_number(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.prom")
    file.write()
    file.add(INSTANCES, 1, dict.fromkeys(RUN_TAGS, "x"))
    assert samples(file.path) == {}


@pytest.mark.parametrize(
    ("waiting", "found"),
    [
        (
            [("Read", 2), ("MapBatches(StageWorker)", 5), ("MapBatches(StageWorker)", 1)],
            {"segment": 5, "write": 1},
        ),
        ([("Read->MapBatches(StageWorker)", 3), ("MapBatches(run_once)", 0)], {"segment": 3, "write": 0}),
        ([("MapBatches(run_once)->MapBatches(run_once)", 4)], {"segment": 4}),
        ([("Input", 9)], {}),
    ],
    ids=["apart", "read fused", "all fused", "none"],
)
def test_queues_of_operators_are_those_of_steps(
    waiting: list[tuple[str, int]], found: dict[str, int]
) -> None:
    assert by_step(waiting, ["segment", "write"]) == found


def test_a_step_is_called_as_its_spans_are() -> None:
    assert timed_as(["annotate"]) == "segment"
    assert timed_as(["select", "annotate"]) == "segment"
    assert timed_as(["encode", "write"]) == "encode"
    assert timed_as(["negatives"]) == "negatives"


def test_names_load_no_ray() -> None:
    program = "import sys, pipelines.watch; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
