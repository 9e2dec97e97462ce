"""The curve of a training: one CSV row per logged step, and a picture of it.

After a kill the rows beyond the resumed state are dropped, so that the file reads as if nothing had happened.
"""

import csv
import os
from collections.abc import Mapping
from pathlib import Path


class Curve:
    """Appends rows to a CSV file; columns are fixed by the first row."""

    def __init__(self, path: Path, *, keep_until: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_curve(path) if row["step"] <= keep_until] if path.exists() else []
        beside = path.with_suffix(f".{os.getpid()}")
        with beside.open("w", newline="") as file:
            if kept:
                writer = csv.DictWriter(file, list(kept[0]))
                writer.writeheader()
                writer.writerows({**row, "step": int(row["step"])} for row in kept)
        beside.replace(path)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row; it is on disk when this returns."""
        row = {"step": step, **values}
        is_first = not self.path.stat().st_size
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_first:
                writer.writeheader()
            writer.writerow(row)


def read_curve(path: Path) -> list[dict[str, float]]:
    """The rows of a curve; one whose end is missing, since its writer was killed, does not count."""
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(whole)]


def draw_curve(path: Path, picture: Path) -> None:
    """A PNG with one line per loss term over the steps."""
    from matplotlib.figure import Figure  # slow to import, and only this needs it

    rows = read_curve(path)
    names = [name for name in rows[0] if name not in ("step", "learning_rate")] if rows else []
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in names:
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=name)
    axes.set(xlabel="step", ylabel="loss", title=path.parent.name)
    if names:
        axes.legend(ncols=2, fontsize="small")
    figure.savefig(picture, dpi=100)
