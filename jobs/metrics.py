"""Where a command's metrics go: `--metrics-file FILE.prom`, and Ray's own where the engine is Ray."""

from pathlib import Path

from pipelines.metrics import IMAGES, REGIONS, MetricsObserver, Sink
from pipelines.metrics_file import MetricsFile
from pipelines.watch import Observer, Observers

_OF_IMAGES = ("label", "retry", "dataset")
"""Jobs whose rows are images; those of others are regions."""
_files: list[MetricsFile] = []
"""The file of the command that this process runs; empty where nobody wants one. A night's steps share it."""


def open_metrics_file(path: Path | None) -> None:
    """The command's file from now on, or none. Raises ConfigError for a place that cannot be written."""
    _files.clear()
    if path is not None:
        _files.append(MetricsFile(path))


def close_metrics_file(exit_code: int) -> None:
    """The command ends with this code."""
    for file in _files:
        file.finish(exit_code)
    _files.clear()


def with_metrics(observer: Observer | None, *, work: str, output: str, on_ray: bool) -> Observer | None:
    """The observer, and one that counts into the command's file and into the Ray that is up."""
    sinks: list[Sink] = list(_files)
    if on_ray:
        from pipelines.ray_metrics import RayMetrics  # loads Ray

        sinks.append(RayMetrics())
    if not sinks:
        return observer
    rows = IMAGES if work in _OF_IMAGES else REGIONS
    counting = MetricsObserver(sinks, work=work, output=output, rows=rows)
    return counting if observer is None else Observers(observer, counting)
