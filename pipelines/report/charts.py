"""Charts as inline SVG: labelled axes, both languages, colours from the page's style. Nothing in them is a script.

All have one width in units, near the pixels of a phone, so that letters stay legible at any size of the page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float64

from pipelines.report.texts import Text, both, both_svg, number

WIDTH, HEIGHT = 400, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 42


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The plane of a chart."""

    x_label: Text
    y_label: Text
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Place of a value, in units."""
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Place of a value, in units."""
        low, high = self.y_range
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def svg(self) -> str:
        """Grid, ticks and labels."""
        parts = []
        for value, label in self.y_ticks:
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_tick(label, _LEFT - 6, y + 3.5, "end"))
        for value, label in self.x_ticks:
            parts.append(_tick(label, self.x(value), HEIGHT - _BOTTOM + 15, "middle"))
        base = self.y(self.y_range[0])
        parts.append(
            f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base:.1f}" y2="{base:.1f}"/>'
        )
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(both_svg(self.x_label, f'x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle"'))
        up = (_TOP + HEIGHT - _BOTTOM) / 2
        parts.append(
            both_svg(self.y_label, f'transform="translate(11 {up:.1f}) rotate(-90)" text-anchor="middle"')
        )
        return "".join(parts)


def _tick(label: str, x: float, y: float, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(label)}</text>'


def chart(
    title: Text, axes: Axes, marks: str, *, legend: Sequence[tuple[str, Text]] = (), note: str = ""
) -> str:
    """A figure: title, plane, marks, legend of (style class, name)."""
    entries = "".join(f'<li><i class="key {style}"></i>{both(name)}</li>' for style, name in legend)
    return (
        f'<figure class="chart"><figcaption>{both(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title.en)} / {escape(title.zh)}">'
        f"{axes.svg()}{marks}</svg>"
        + (f'<ul class="legend">{entries}</ul>' if entries else "")
        + (f'<p class="fine">{note}</p>' if note else "")
        + "</figure>"
    )


def round_ticks(high: float, count: int = 4) -> list[tuple[float, str]]:
    """About `count` round numbers from 0 to at least `high`."""
    if high <= 0:
        return [(0.0, "0"), (1.0, "1")]
    rough = high / count
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * factor for factor in (1, 2, 2.5, 5, 10) if base * factor >= rough * (1 - 1e-9))
    num_steps = math.ceil(high / step - 1e-9)
    return [(step * i, short(step * i)) for i in range(num_steps + 1)]


def short(value: float) -> str:
    """`1.2k`, `3M`: numbers of ticks."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def shares_axis() -> list[tuple[float, str]]:
    """Ticks of [0, 1]."""
    return [(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")]


def histogram(
    title: Text,
    x_label: Text,
    stacks: Sequence[tuple[str, Text, Float64[np.ndarray, " M"]]],
    *,
    note: str = "",
) -> str:
    """Counts over [0, 1], stacked; each stack is (style class, name, counts)."""
    totals = np.sum([counts for *_, counts in stacks], axis=0)
    ticks = round_ticks(float(totals.max(initial=0)))
    axes = Axes(
        x_label=x_label,
        y_label=Text("regions", "区域数"),
        x_ticks=shares_axis(),
        y_ticks=ticks,
        x_range=(0, 1),
        y_range=(0, ticks[-1][0]),
    )
    marks, below = [], np.zeros(len(totals))
    for style, name, counts in stacks:
        for place, count in enumerate(counts.tolist()):
            if count:
                left, right = axes.x(place / len(totals)), axes.x((place + 1) / len(totals))
                top, bottom = axes.y(below[place] + count), axes.y(below[place])
                marks.append(
                    f'<rect class="{style}" x="{left + 0.5:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}"'
                    f' height="{max(bottom - top, 0.5):.1f}"><title>{place / len(totals):.2f}–'
                    f"{(place + 1) / len(totals):.2f}: {number(count)} {escape(name.en)}</title></rect>"
                )
        below = below + counts
    return chart(title, axes, "".join(marks), legend=[(s, n) for s, n, _ in stacks], note=note)


def lines(
    title: Text,
    y_label: Text,
    series: Sequence[tuple[str, Text, Float64[np.ndarray, " T"]]],
    *,
    width_s: float,
    breaks: Sequence[float] = (),
    top: float | None = None,
    note: str = "",
) -> str:
    """Lines over working time; each series is (style class, name, value of each slice). `top`: a line to compare."""
    num_slices = len(series[0][2])
    highest = max([float(values.max(initial=0)) for *_, values in series] + [top or 0.0])
    ticks = round_ticks(highest)
    total = width_s * num_slices
    unit, name = (
        (3600.0, Text("hours of work", "工作时间(小时)"))
        if total > 7200
        else (60.0, Text("minutes of work", "工作时间(分钟)"))
        if total > 180
        else (1.0, Text("seconds of work", "工作时间(秒)"))
    )
    x_ticks = [(value, label) for value, label in round_ticks(total / unit) if value <= total / unit * 1.001]
    axes = Axes(
        x_label=name,
        y_label=y_label,
        x_ticks=x_ticks,
        y_ticks=ticks,
        x_range=(0, total / unit),
        y_range=(0, ticks[-1][0]),
    )
    marks = [_break(axes, at / unit) for at in breaks]
    if top is not None:
        y = axes.y(top)
        marks.append(f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for style, _, values in series:
        points = []
        for place, value in enumerate(values.tolist()):
            y = axes.y(value)
            points += [(axes.x(at * width_s / unit), y) for at in (place, place + 1)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        marks.append(f'<polyline class="line {style}" points="{path}"/>')
    return chart(title, axes, "".join(marks), legend=[(s, n) for s, n, _ in series], note=note)


def _break(axes: Axes, at: float) -> str:
    x = axes.x(at)
    return f'<line class="break" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'


def reliability(
    title: Text,
    curves: Sequence[tuple[str, Text, Sequence[tuple[float, float, int]]]],
    *,
    y_label: Text,
    note: str = "",
) -> str:
    """Share of right ones over score; dots grow with what they stand for; on the dashes scores mean what they say."""
    axes = Axes(
        x_label=Text("score", "分数"),
        y_label=y_label,
        x_ticks=shares_axis(),
        y_ticks=shares_axis(),
        x_range=(0, 1),
        y_range=(0, 1),
    )
    ends = f'x1="{axes.x(0):.1f}" y1="{axes.y(0):.1f}" x2="{axes.x(1):.1f}" y2="{axes.y(1):.1f}"'
    marks = [f'<line class="limit" {ends}/>']
    for style, name, points in curves:
        path = " ".join(f"{axes.x(score):.1f},{axes.y(right):.1f}" for score, right, _ in points)
        marks.append(f'<polyline class="line {style}" points="{path}"/>')
        most = max((count for *_, count in points), default=0)
        for score, right, count in points:
            if count:
                radius = 1.5 + 4.5 * math.sqrt(count / most)
                marks.append(
                    f'<circle class="{style}" cx="{axes.x(score):.1f}" cy="{axes.y(right):.1f}" r="{radius:.1f}">'
                    f"<title>{escape(name.en)}: {score:.2f} → {right:.2f} ({number(count)})</title></circle>"
                )
    return chart(title, axes, "".join(marks), legend=[(s, n) for s, n, _ in curves], note=note)


def stacked_bar(parts: Sequence[tuple[str, float]], whole: float, *, label: str) -> str:
    """A thin bar of shares of `whole`, for tables and the head of the page."""
    marks, at = [], 0.0
    for style, amount in parts:
        width = 100 * amount / whole if whole else 0.0
        if amount:
            marks.append(
                f'<rect class="{style}" x="{at:.2f}" y="0" width="{max(width, 0.4):.2f}" height="8"/>'
            )
        at += width
    return (
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(label)}">{"".join(marks)}</svg>'
    )
