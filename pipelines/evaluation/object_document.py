"""What an evaluation says about instances: plain data, rows of tables, sentences, explanations."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ovsops.metrics.calibration import SAMPLE_UNIT
from pipelines.evaluation.explanations import explain_object_figure
from pipelines.evaluation.figures import Estimate
from pipelines.evaluation.object_figures import OBJECT_MEANINGS, PER_CLASS, ObjectResults
from pipelines.evaluation.shown import shown, shown_value

MAX_CLASSES = 60
"""Rows of the table of classes; of more classes, the highest and the lowest half of these."""


def object_explanations(results: ObjectResults) -> Iterator[tuple[str, str]]:
    """What each row of the table is and does not say."""
    for name in results.scalars:
        sentence = explain_object_figure(name, results.config, num_bins=results.layout.num_bins)
        yield OBJECT_MEANINGS[name], sentence


def object_figure_rows(results: ObjectResults) -> Iterator[list[str]]:
    """A header, then a row for each figure: every run, differences to the first."""
    first = next(iter(results.estimates))
    yield ["", *results.estimates, *(f"{name} − {first}" for name in results.differences)]
    for name in results.scalars:
        row = [OBJECT_MEANINGS[name], *(shown(found[name]) for found in results.estimates.values())]
        yield row + [shown(found[name], sign=True) for found in results.differences.values()]


def object_class_rows(results: ObjectResults) -> Iterator[list[str]]:
    """A header, then the classes that have objects, those with the largest AP of the first run first."""
    names = list(results.estimates)
    prefix = (lambda name: "") if len(names) == 1 else (lambda name: f"{name}: ")
    figures = [figure for figure in PER_CLASS if figure != "mask_ap" or figure in results.scalars]
    yield [
        "id",
        "class",
        "true objects",
        *(
            f"{prefix(name)}{what}"
            for name in names
            for what in ("found", *(OBJECT_MEANINGS[figure] for figure in figures))
        ),
    ]
    for place in _shown_places(results):
        row = [
            str(results.classes.ids[place]),
            results.classes.names[place],
            str(int(results.objects_by_place(names[0])[1, place])),
        ]
        for name in names:
            found = {f: results.estimates[name][f"class_{f}/{place}"] for f in figures}
            row.append(str(int(results.objects_by_place(name)[0, place])))
            row += [shown(found["box_ap"]), *(shown_value(found[f]) for f in figures[1:])]
        yield row


def _ap(results: ObjectResults, place: int) -> Estimate:
    return results.estimates[next(iter(results.estimates))][f"class_box_ap/{place}"]


def _with_objects(results: ObjectResults) -> list[int]:
    """Places that have true objects, by falling AP of the first run."""
    true = results.objects_by_place(next(iter(results.estimates)))[1]
    places = [place for place in results.places if true[place]]
    return sorted(places, key=lambda place: (-np.nan_to_num(_ap(results, place).value, nan=-1.0), place))


def _shown_places(results: ObjectResults) -> list[int]:
    places = _with_objects(results)
    half = MAX_CLASSES // 2
    return places if len(places) <= MAX_CLASSES else places[:half] + places[-half:]


def object_sentences(results: ObjectResults) -> Iterator[str]:
    """What the tables cannot say."""
    first = next(iter(results.estimates))
    num_true = int(results.objects_by_place(first)[1].sum())
    found = ", ".join(f"{run.num_found} of {name}" for name, run in results.runs.items())
    yield (
        f"Instances of things ({found}) against {num_true} true objects. A segmenter's connected parts count as"
        " instances, too. In brackets the interval of the same draws of images as above."
    )
    num_classes = len(_with_objects(results))
    if num_classes > MAX_CLASSES:
        yield (
            f"The table of classes shows the {MAX_CLASSES // 2} of the largest AP and the {MAX_CLASSES // 2} of the"
            f" smallest; all {num_classes} are in metrics.json."
        )


def objects_to_plain(results: ObjectResults, run: str) -> dict[str, Any]:
    """All that is known of a run's instances as JSON data; nan is null."""
    counts, estimates = results.objects_by_place(run), results.estimates[run]
    return {
        "num_found": results.runs[run].num_found,
        "num_true": int(counts[1].sum()),
        "figures": {name: estimates[name].to_plain() for name in OBJECT_MEANINGS},
        "classes": [
            {
                "id": results.classes.ids[place],
                "name": results.classes.names[place],
                "true": int(counts[1, place]),
                "found": int(counts[0, place]),
                **{figure: estimates[f"class_{figure}/{place}"].to_plain() for figure in PER_CLASS},
            }
            for place in results.places
        ],
        "reliability": {name: _bins(results, run, name) for name in ("raw", "calibrated")},
    }


def differences_to_plain(results: ObjectResults) -> dict[str, Any]:
    """Differences of each run to the first."""
    return {
        name: {figure: found[figure].to_plain() for figure in OBJECT_MEANINGS}
        for name, found in results.differences.items()
    }


def _bins(results: ObjectResults, run: str, table: str) -> list[dict[str, float]]:
    counts = results.table(run, table)
    width = 1 / counts.shape[1]
    return [
        {"from": round(i * width, 6), "instances": n, "sum_of_scores": scores / SAMPLE_UNIT, "right": right}
        for i, (n, scores, right) in enumerate(counts.T.tolist())
    ]
