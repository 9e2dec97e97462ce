"""Metrics as a text file for Prometheus' node exporter (`--collector.textfile.directory`): for runs that cron starts.

The file is put in place as a whole, so that no reader ever sees half of one. Format: Prometheus' text exposition
format, version 0.0.4.
"""

import logging
import os
import time
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

from ovsops.errors import ConfigError
from pipelines.metrics import EXIT_CODE, FINISHED, METRICS, Metric, tag_names

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 5.0
"""Seconds between two versions of the file, while a run works."""

_Values = tuple[str, ...]


class MetricsFile:
    """A sink that keeps numbers, and puts them into a file now and then."""

    def __init__(self, path: Path) -> None:
        """Puts an empty file at once. Raises `ConfigError` for a place that cannot be written."""
        self.path = path
        self._numbers: dict[Metric, dict[_Values, float]] = {}
        self._buckets: dict[Metric, dict[_Values, list[int]]] = {}
        self._written = 0.0
        self._is_broken = False
        if path.suffix != ".prom":
            raise ConfigError(f"--metrics-file {path}: the name must end in .prom, or node exporter skips it")
        try:
            self._put()
        except OSError as error:
            raise ConfigError(f"--metrics-file {path}: cannot be written ({error.strerror})") from error

    def add(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Raise a counter."""
        numbers, key = self._number(metric), _values(metric, tags)
        numbers[key] = numbers.get(key, 0.0) + value
        self._write_now_and_then()

    def set(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Put a gauge."""
        self._number(metric)[_values(metric, tags)] = value
        self._write_now_and_then()

    def observe(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Add to a histogram."""
        key = _values(metric, tags)
        counts = self._buckets.setdefault(metric, {}).setdefault(key, [0] * (len(metric.boundaries) + 1))
        counts[bisect_left(metric.boundaries, value)] += 1
        numbers = self._number(metric)
        numbers[key] = numbers.get(key, 0.0) + value  # the sum
        self._write_now_and_then()

    def finish(self, exit_code: int) -> None:
        """The command ends: its code, and the last version of the file."""
        self.set(EXIT_CODE, exit_code, {})
        self.set(FINISHED, time.time(), {})
        self.write()

    def write(self) -> None:
        """Put the file in place. A disk that is full ends no run: it is said once."""
        self._written = time.monotonic()
        try:
            self._put()
        except OSError as error:
            if not self._is_broken:
                logger.warning(
                    "metrics: %s cannot be written: %s; the run goes on", self.path, error.strerror
                )
            self._is_broken = True
        else:
            self._is_broken = False

    def text(self) -> str:
        """All numbers, in the order of the registry."""
        lines: list[str] = []
        for metric in METRICS:
            if metric not in self._numbers:
                continue
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            for values, number in sorted(self._numbers[metric].items()):
                lines += self._samples(metric, values, number)
        return "".join(f"{line}\n" for line in lines)

    def _samples(self, metric: Metric, values: _Values, number: float) -> list[str]:
        tags = dict(zip(tag_names(metric), values, strict=True))
        if metric.kind != "histogram":
            return [f"{metric.name}{_labels(tags)} {number:.17g}"]
        lines, total = [], 0
        counts = self._buckets[metric][values]
        for bound, count in zip((*metric.boundaries, float("inf")), counts, strict=True):
            total += count
            le = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f"{metric.name}_bucket{_labels(tags | {'le': le})} {total}")
        return [
            *lines,
            f"{metric.name}_sum{_labels(tags)} {number:.17g}",
            f"{metric.name}_count{_labels(tags)} {total}",
        ]

    def _number(self, metric: Metric) -> dict[_Values, float]:
        return self._numbers.setdefault(metric, {})

    def _write_now_and_then(self) -> None:
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            self.write()

    def _put(self) -> None:
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")  # no .prom: nobody reads it
        try:
            beside.write_text(self.text(), "utf-8")
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)


def _values(metric: Metric, tags: Mapping[str, str]) -> _Values:
    return tuple(tags[name] for name in tag_names(metric))


def _labels(tags: Mapping[str, str]) -> str:
    if not tags:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in tags.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
