"""Metrics through Ray's own (`ray.util.metrics`): Prometheus scrapes them from the nodes with Ray's, as `ray_<name>`.

A Ray without the metrics of `ray[default]` (the extra `cluster`) takes the numbers and shows them to nobody. Seen of
Ray 2.60: a gauge is shown for two report intervals after it was put (20 seconds, unless `metrics_report_interval_ms`
says otherwise), so that queries want `last_over_time`; a histogram's sum is made of the middles of its buckets.
"""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from pipelines.metrics import METRICS, Metric, tag_names


class RayMetrics:
    """A sink. Its Ray must be up. Each number costs about two microseconds of the driver."""

    def __init__(self) -> None:
        self._counters: dict[Metric, Counter] = {}
        self._gauges: dict[Metric, Gauge] = {}
        self._histograms: dict[Metric, Histogram] = {}
        for metric in METRICS:
            tags = tag_names(metric)
            if metric.kind == "counter":
                self._counters[metric] = Counter(metric.name, description=metric.help, tag_keys=tags)
            elif metric.kind == "gauge":
                self._gauges[metric] = Gauge(metric.name, description=metric.help, tag_keys=tags)
            else:
                self._histograms[metric] = Histogram(
                    metric.name, description=metric.help, boundaries=list(metric.boundaries), tag_keys=tags
                )

    def add(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Raise a counter. Ray refuses to raise one by nothing."""
        if value > 0:
            self._counters[metric].inc(value, dict(tags))

    def set(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Put a gauge."""
        self._gauges[metric].set(value, dict(tags))

    def observe(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Add to a histogram."""
        self._histograms[metric].observe(value, dict(tags))
