"""Plots of an evaluation as PNG bytes: classes with intervals, confusion, reliability. Axes: C places, M bins."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from matplotlib.figure import Figure  # without pyplot: no state, no display

from ovsops.metrics.calibration import mean_scores, right_shares
from ovsops.metrics.counts import ratio
from pipelines.evaluation.figures import Estimate

_COLOURS = ("#2f6fb3", "#e08a2c", "#4a9d5b", "#a25bb5", "#c94f4f", "#6d7680")
_MAX_NAMED = 60
"""Classes whose names fit beside a confusion matrix."""


def class_bars(
    classes: Sequence[str], runs: Mapping[str, Sequence[Estimate]], *, title: str = "IoU of each class"
) -> bytes:
    """A bar for each class and run, with the interval; no bar where a figure is not defined."""
    height = 0.24 * max(len(classes), 4) * max(1.0, 0.55 * len(runs)) + 1.2
    figure = Figure(figsize=(7.2, min(height, 60.0)), layout="constrained")
    axes = figure.subplots()
    thickness = 0.8 / len(runs)
    places = np.arange(len(classes))
    for number, (run, estimates) in enumerate(runs.items()):
        values, low, high = (
            np.array([getattr(e, name) for e in estimates], float) for name in ("value", "low", "high")
        )
        reach = np.nan_to_num(np.stack([values - low, high - values])).clip(min=0.0)
        offset = (number - (len(runs) - 1) / 2) * thickness
        axes.barh(
            places + offset,
            np.nan_to_num(values),
            thickness * 0.9,
            xerr=reach,
            label=run,
            color=_COLOURS[number % len(_COLOURS)],
            error_kw={"elinewidth": 1.0, "ecolor": "#30343a"},
        )
    axes.set(yticks=places, yticklabels=list(classes), xlim=(0, 1), title=title)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axes.legend(loc="lower right", fontsize="small")
    return _png(figure)


def confusion_matrix(names: Sequence[str], counts: Int64[np.ndarray, "C C"], *, title: str) -> bytes:
    """Where the pixels of each true class (row) went; a row sums to 1, classes that never occur are empty."""
    shares = np.nan_to_num(ratio(counts, counts.sum(axis=1, keepdims=True).repeat(len(counts), axis=1)))
    is_named = len(names) <= _MAX_NAMED
    side = min(2.4 + (0.27 if is_named else 0.05) * len(names), 18.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class's pixels")
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if is_named:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
        axes.set_yticks(range(len(names)), names, fontsize="small")
    return _png(figure)


def reliability_diagram(tables: Mapping[str, Int64[np.ndarray, "3 M"]], *, what: str = "regions") -> bytes:
    """Share of right ones over their mean score, and how many there are; on the diagonal is calibrated."""
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color="#9aa0a8", linewidth=1, linestyle="--")
    for number, (run, table) in enumerate(tables.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        is_filled = table[0] > 0
        upper.plot(
            mean_scores(table)[is_filled], right_shares(table)[is_filled], marker="o", color=colour, label=run
        )
        num_bins = table.shape[1]
        lower.stairs(table[0], np.linspace(0, 1, num_bins + 1), color=colour, fill=len(tables) == 1)
    upper.set(
        ylabel=f"share of {what} that are right",
        xlim=(0, 1),
        ylim=(0, 1),
        title=f"Reliability of scores of {what}",
    )
    lower.set(xlabel="score", ylabel=what)
    if len(tables) > 1:
        upper.legend(fontsize="small")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Any) -> bytes:
    """Bytes that depend on the numbers alone: no date, no version."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()
