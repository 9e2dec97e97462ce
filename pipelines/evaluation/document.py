"""What an evaluation says, as plain data (`metrics.json`) and as tables (`metrics.md`)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64

from ovsops.metrics.bootstrap import BootstrapConfig
from ovsops.metrics.calibration import PIXEL_UNIT, SAMPLE_UNIT
from pipelines.evaluation.explanations import CEILING as CEILING_MEANING
from pipelines.evaluation.explanations import explain
from pipelines.evaluation.figures import CEILING, MEANINGS, PER_CLASS, Estimate, Estimates, Figures
from pipelines.evaluation.object_document import (
    differences_to_plain,
    object_class_rows,
    object_explanations,
    object_figure_rows,
    object_sentences,
    objects_to_plain,
)
from pipelines.evaluation.object_figures import ObjectResults
from pipelines.evaluation.shown import markdown_table, shown, shown_value
from pipelines.evaluation.tally import RunTally, Tally

FORMAT = 1
"""Version of `metrics.json`."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Figures of all runs, with their intervals."""

    tally: Tally
    figures: Figures
    estimates: Mapping[str, Estimates]
    """By run."""
    differences: Mapping[str, Estimates]
    """Of each run but the first to the first."""
    truth: str
    bootstrap: BootstrapConfig
    objects: ObjectResults | None = None
    """Figures of instances; None where `tally.why_no_objects` says why."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Recipe hash, versions, and what each run was made with."""

    @classmethod
    def of(
        cls, tally: Tally, *, truth: str, bootstrap: BootstrapConfig, provenance: Mapping[str, Any]
    ) -> "Results":
        """Work out every figure and interval."""
        figures = Figures(tally.counter.classes, tally.counter.layout)
        states = {name: run.blocks.states for name, run in tally.runs.items()}
        first = next(iter(states))
        return cls(
            tally=tally,
            figures=figures,
            estimates={name: figures.estimate(rows, bootstrap) for name, rows in states.items()},
            differences={
                name: figures.differences(rows, states[first], bootstrap)
                for name, rows in states.items()
                if name != first
            },
            truth=truth,
            bootstrap=bootstrap,
            objects=_objects(tally, bootstrap),
            provenance=provenance,
        )

    @property
    def first(self) -> str:
        """Name of the run that the others are compared with."""
        return next(iter(self.estimates))

    @property
    def scalars(self) -> list[str]:
        """Figures of tables, in their order."""
        return [name for name in MEANINGS if name in self.estimates[self.first]]

    def ceiling(self, kind: str) -> dict[str, Estimate]:
        """Figures of a perfect classifier of patches (`hard` or `soft`); empty without a grid."""
        found = self.estimates[self.first]
        return {name: found[f"{kind}_{name}"] for name in CEILING if f"{kind}_{name}" in found}

    def of_class(self, run: str, figure: str) -> list[Estimate]:
        """A figure of every counted class, in the order of their ids."""
        return [self.estimates[run][f"class_{figure}/{place}"] for place in self.places]

    @property
    def places(self) -> tuple[int, ...]:
        """Places that are counted."""
        return self.tally.counter.classes.counted


def _objects(tally: Tally, bootstrap: BootstrapConfig) -> ObjectResults | None:
    if (counter := tally.object_counter) is None:
        return None
    return ObjectResults.of(
        {name: run.objects for name, run in tally.runs.items() if run.objects is not None},
        counter.classes,
        counter.layout,
        config=counter.config,
        bootstrap=bootstrap,
    )


def to_plain(results: Results) -> dict[str, Any]:
    """All of it as JSON data; nan is null."""
    tally, config = results.tally, results.tally.counter.config
    classes = tally.counter.classes
    some_run = next(iter(tally.runs.values()))
    return {
        "format": FORMAT,
        **results.provenance,
        "truth": results.truth,
        "num_images": tally.num_images,
        "images_without_truth": {"num": tally.num_without_truth, "named": tally.without_truth},
        "bootstrap": {**vars(results.bootstrap), "images_per_block": some_run.blocks.images_per_block},
        "boundary": vars(config.boundary),
        "objects": {"left_out": tally.why_no_objects or None}
        if results.objects is None
        else {"left_out": None, **vars(results.objects.config)},
        "runs": {
            name: {
                "images": {s: run.statuses[s] for s in ("labelled", "skipped", "failed")},
                "not_labelled": run.not_labelled,
                "regions": run.regions,
                "contested_pixels": run.contested,
                "figures": _plain(results.estimates[name], results.scalars),
                "classes": [
                    {
                        "id": classes.ids[place],
                        "name": classes.names[place],
                        "true_pixels": int(run.confusion[place].sum()),
                        "predicted_pixels": int(run.confusion[:, place].sum()),
                        **{
                            figure: results.estimates[name][f"class_{figure}/{place}"].to_plain()
                            for figure in PER_CLASS
                        },
                    }
                    for place in results.places
                ],
                "reliability": _reliability(results, run),
                "objects": None if results.objects is None else objects_to_plain(results.objects, name),
            }
            for name, run in tally.runs.items()
        },
        "ceiling": {
            "grid": config.grid,
            **{k: _plain(results.ceiling(k), list(results.ceiling(k))) for k in ("hard", "soft")},
        }
        if config.grid
        else None,
        "differences_to_first": {
            name: _plain(estimates, results.scalars) for name, estimates in results.differences.items()
        },
        "object_differences_to_first": {}
        if results.objects is None
        else differences_to_plain(results.objects),
    }


def _plain(estimates: Estimates, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    return {name: estimates[name].to_plain() for name in names}


def score_table(results: Results, run: RunTally, part: str = "scores") -> Int64[np.ndarray, "3 M"]:
    """Regions of a run by score; `by_area` weighs each by its pixels."""
    return results.tally.counter.layout.part(run.blocks.states.sum(axis=0), part)


def _reliability(results: Results, run: RunTally) -> list[dict[str, int | float]]:
    """Bins of equal width with the sums that they hold."""
    table = np.concatenate([score_table(results, run), score_table(results, run, "by_area")])
    width = 1 / table.shape[1]
    return [
        {
            "from": round(i * width, 6),
            "regions": n,
            "sum_of_scores": scores / SAMPLE_UNIT,
            "right": right,
            "pixels": pixels,
            "sum_of_scores_by_area": by_area / PIXEL_UNIT,
            "pixels_of_right": pixels_right,
        }
        for i, (n, scores, right, pixels, by_area, pixels_right) in enumerate(table.T.tolist())
    ]


def figure_rows(results: Results) -> Iterator[list[str]]:
    """A header, then a row for each figure: every run, the ceiling where there is one, differences to the first run."""
    ceilings = {kind: results.ceiling(kind) for kind in ("hard", "soft") if results.ceiling(kind)}
    grid = results.tally.counter.config.grid
    header = ["", *results.estimates, *(f"{g}x{g} patches, {kind}" for kind in ceilings for g in [grid])]
    yield header + [f"{name} − {results.first}" for name in results.differences]
    for name in results.scalars:
        row = [MEANINGS[name], *(shown(e[name]) for e in results.estimates.values())]
        row += [shown(c[name]) if name in c else "" for c in ceilings.values()]
        yield row + [shown(d[name], sign=True) for d in results.differences.values()]


def class_rows(results: Results) -> Iterator[list[str]]:
    """A header, then a row for each class: pixels of the truth, and every run's IoU and boundary F."""
    classes = results.tally.counter.classes
    names = list(results.estimates)
    label = (lambda run, what: what) if len(names) == 1 else (lambda run, what: f"{run}: {what}")
    yield [
        "id",
        "class",
        "true pixels",
        *(label(n, w) for n in names for w in ("IoU", "accuracy", "boundary F", "boundary IoU")),
    ]
    confusion = results.tally.runs[names[0]].confusion
    for place in results.places:
        row = [str(classes.ids[place]), classes.names[place], f"{int(confusion[place].sum())}"]
        for name in names:
            found = {figure: results.estimates[name][f"class_{figure}/{place}"] for figure in PER_CLASS}
            row += [shown(found["iou"]), *(shown_value(found[f]) for f in PER_CLASS[1:])]
        yield row


def sentences(results: Results) -> Iterator[str]:
    """What the tables cannot say: how much was counted, what was not, and how to read it."""
    tally, config = results.tally, results.bootstrap
    yield (
        f"{tally.num_images} images against the truth {results.truth}; in brackets the {config.confidence:.0%}"
        f" interval of {config.num_resamples} bootstrap resamples of images, seed {config.seed}."
    )
    for name, run in tally.runs.items():
        lost = run.statuses["failed"] + run.statuses["skipped"]
        if lost:
            first = "; ".join(f"{where} ({why[:80]})" for where, why in list(run.not_labelled.items())[:3])
            yield (
                f"{name}: {run.statuses['failed']} failed and {run.statuses['skipped']} skipped images are counted as"
                f" unlabelled everywhere, wrong wherever a class is true: {first}{' ...' if lost > 3 else ''}"
            )
        if run.contested:
            labelled = int(run.confusion[:, 1:].sum())
            yield (
                f"{name}: {run.contested} pixels ({run.contested / max(labelled, 1):.2%} of those with a label) lie in"
                " more than one region; in the map the region of the best score has them."
            )
    if tally.num_without_truth:
        first = "; ".join(list(tally.without_truth.values())[:3])
        yield f"{tally.num_without_truth} images have no usable truth and are not counted: {first}"
    blocks = next(iter(tally.runs.values())).blocks
    if blocks.images_per_block > 1:
        yield f"Resamples draw blocks of {blocks.images_per_block} consecutive images."


def explanations(results: Results) -> Iterator[tuple[str, str]]:
    """What each row of the table is and does not say, and the columns of the ceiling."""
    config = results.tally.counter.config
    for name in results.scalars:
        yield MEANINGS[name], explain(name, config)
    if config.grid:
        yield f"{config.grid}x{config.grid} patches", CEILING_MEANING


def to_markdown(results: Results, *, title: str, notice: str) -> str:
    """The tables, with what is said about them."""
    parts = [f"# {title}"]
    if notice:
        parts.append(f"**{notice}**")
    parts += [markdown_table(list(figure_rows(results))), *sentences(results)]
    parts += [
        "## How to read the figures",
        "\n".join(f"- **{what}**: {why}" for what, why in explanations(results)),
    ]
    parts += _instances(results)
    parts += ["## Classes", markdown_table(list(class_rows(results)))]
    parts.append(
        f"Recipe {results.provenance.get('recipe_hash', '')}, made by `{results.provenance.get('command', '')}`."
    )
    return "\n\n".join(parts) + "\n"


def _instances(results: Results) -> list[str]:
    """The section about instances."""
    found = results.objects
    if found is None:
        return ["## Instances", f"Left out: {results.tally.why_no_objects}."]
    return [
        "## Instances",
        markdown_table(list(object_figure_rows(found))),
        *object_sentences(found),
        "\n".join(f"- **{what}**: {why}" for what, why in object_explanations(found)),
        "### Instances by class, the largest AP first",
        markdown_table(list(object_class_rows(found))),
    ]
