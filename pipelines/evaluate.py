"""The evaluate job: labelled runs against ground truth; figures with intervals, tables, plots, a page.

read rows and masks -> count each image -> bootstrap -> metrics.json, metrics.md, plots, pictures, index.html
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ovsops.metrics.bootstrap import BootstrapConfig
from pipelines.evaluation.counting import CountConfig
from pipelines.evaluation.document import Results, score_table, to_markdown, to_plain
from pipelines.evaluation.object_counts import ObjectsConfig
from pipelines.evaluation.object_figures import ObjectResults
from pipelines.evaluation.pictures import DrawnPicture, ImageSource, PicturesConfig, draw_pictures
from pipelines.evaluation.plots import class_bars, confusion_matrix, reliability_diagram
from pipelines.evaluation.tally import Tally, tally_runs
from pipelines.evaluation.truths import TruthSource
from pipelines.lock import OutputLock
from pipelines.manifest import claim_output
from pipelines.report.evaluation_page import evaluation_page
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.summary import SUMMARY, write_summary

logger = logging.getLogger(__name__)

METRICS, TABLES, PAGE = "metrics.json", "metrics.md", "index.html"


@dataclass(frozen=True, kw_only=True)
class EvaluateLimits:
    """How much may be amiss before a finished evaluation counts as one that needs a look (exit 3)."""

    max_failed_share: float = 0.01
    """Share of the counted images of a run that failed to be labelled."""
    max_without_truth_share: float = 0.0
    """Share of the images that have no usable truth."""
    needs_finished_runs: bool = True
    """Whether a run with shards that are pending or failed is over the limits."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """A labelled run, and where its pictures are."""

    storage: Storage
    source: ImageSource | None
    """None draws no pictures."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What it was made with: place, recipe hash, checkpoints."""


@dataclass(frozen=True, kw_only=True)
class EvaluateJob:
    """Everything an evaluation needs, resolved. The vocabularies of the runs are those of the truth."""

    output: str
    runs: Mapping[str, EvaluatedRun]
    """By the name that tables call them; the others are compared with the first."""
    truth: TruthSource
    manifest: Mapping[str, Any]
    """Content of `run.json`; `manifest["recipe"]` decides whether an output may be written again."""
    counts: CountConfig = field(default_factory=CountConfig)
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    limits: EvaluateLimits = field(default_factory=EvaluateLimits)
    storage: StorageOptions = field(default_factory=StorageOptions)
    title: str = "Evaluation"
    notice: str = ""
    """A sentence that stands at the top of the page and of the tables."""


def run_evaluate(job: EvaluateJob) -> dict[str, Any]:
    """Evaluate, write everything, and give the summary, which is also written to OUT.

    Raises `OutputError` if the output is locked or another run's, or labels cannot be scored; `ConfigError` where
    there is nothing to count. Whatever ends it, a summary is written once the lock is held.
    """
    storage = open_storage(job.output, job.storage)
    started = time.time()
    with OutputLock(storage):
        claim_output(storage, job.manifest)
        summary: dict[str, Any] = {"state": "interrupted", "error": "", "over_limits": []}
        try:
            summary |= _evaluate(job, storage)
            summary["state"] = "done"
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            summary |= {"state": "error", "error": f"{type(problem).__name__}: {problem}"[:4000]}
            raise
        finally:
            seconds = round(time.time() - started, 3)
            summary["this_run"] = {"started_unix": started, "seconds": seconds}
            write_summary(storage, summary)
    return summary


def _evaluate(job: EvaluateJob, storage: Storage) -> dict[str, Any]:
    tally = tally_runs(
        {name: run.storage for name, run in job.runs.items()},
        job.truth,
        job.counts,
        objects=job.objects,
        num_worst=job.pictures.worst,
        num_first=job.pictures.first,
    )
    logger.info("%d images counted for %s", tally.num_images, ", ".join(job.runs))
    provenance = {
        "recipe_hash": job.manifest.get("recipe_hash", ""),
        "command": job.manifest.get("command", ""),
        "versions": job.manifest.get("versions", {}),
        "labelled_runs": {name: dict(run.provenance) for name, run in job.runs.items()},
    }
    results = Results.of(tally, truth=job.truth.name, bootstrap=job.bootstrap, provenance=provenance)
    plots = _plots(results)
    first, worst = _pictures(job, tally)
    for stem, png in plots.values():
        storage.put(f"plots/{stem}.png", png)
    for picture in (*first, *worst):
        storage.put(f"pictures/{picture.name}", picture.png)
    document = json.dumps(to_plain(results), indent=1, ensure_ascii=False, allow_nan=False)
    storage.put(METRICS, (document + "\n").encode())
    storage.put(TABLES, to_markdown(results, title=job.title, notice=job.notice).encode())
    page = evaluation_page(
        results,
        title=job.title,
        notice=job.notice,
        plots={what: (f"plots/{stem}.png", png) for what, (stem, png) in plots.items()},
        first={f"pictures/{picture.name}": picture for picture in first},
        worst={f"pictures/{picture.name}": picture for picture in worst},
    )
    storage.put(PAGE, page.encode())
    return _summary(job, results)


def _plots(results: Results) -> dict[str, tuple[str, bytes]]:
    """File stem and PNG by what a plot shows."""
    classes = results.tally.counter.classes
    names = [classes.names[place] for place in results.places]
    bars = class_bars(names, {run: results.of_class(run, "iou") for run in results.estimates})
    tables = {name: score_table(results, run) for name, run in results.tally.runs.items()}
    plots = {"IoU of each class, with intervals": ("classes", bars)}
    for name, run in results.tally.runs.items():
        matrix = confusion_matrix(classes.names, run.confusion, title=f"Confusion, {name}")
        plots[f"Confusion of {name}: true classes in rows"] = (f"confusion-{name}", matrix)
    plots["Reliability of region scores"] = ("reliability", reliability_diagram(tables))
    if results.objects is not None:
        plots |= _object_plots(results.objects)
    return plots


def _object_plots(results: ObjectResults) -> dict[str, tuple[str, bytes]]:
    """AP of each class, and scores of instances before and after calibration."""
    places = [
        place for place in results.places if results.objects_by_place(next(iter(results.runs)))[1, place]
    ]
    bars = class_bars(
        [results.classes.names[place] for place in places],
        {
            run: [found[f"class_box_ap/{place}"] for place in places]
            for run, found in results.estimates.items()
        },
        title="AP of boxes of each class",
    )
    tables = {
        f"{run}, {kind}": table
        for run in results.runs
        for kind in ("raw", "calibrated")
        for table in [results.table(run, kind)]
        if table[0].any()
    }
    both = ", before and after calibration" if len(tables) > len(results.runs) else ""
    what = f"Reliability of instance scores{both}"
    return {
        "AP of boxes of each class, with intervals": ("instance-classes", bars),
        what: ("instance-reliability", reliability_diagram(tables, what="instances")),
    }


def _pictures(job: EvaluateJob, tally: Tally) -> tuple[list[DrawnPicture], list[DrawnPicture]]:
    first: list[DrawnPicture] = []
    worst: list[DrawnPicture] = []
    has_boxes = tally.object_counter is not None
    for name, run in job.runs.items():
        if run.source is None:
            continue
        title = "labels" if len(job.runs) == 1 else name
        counted = tally.runs[name]
        chosen = [(f"{name}-first-{i:02d}", image.where, image) for i, image in enumerate(counted.first, 1)]
        lowest = [
            (f"{name}-worst-{i:02d}", f"{image.where}, mIoU {value:.3f}", image)
            for i, (value, image) in enumerate(counted.worst, 1)
        ]
        first += draw_pictures(chosen, run.source, job.truth, labels_title=title, has_boxes=has_boxes)
        worst += draw_pictures(lowest, run.source, job.truth, labels_title=title, has_boxes=has_boxes)
    return first, worst


def _summary(job: EvaluateJob, results: Results) -> dict[str, Any]:
    tally = results.tally
    return {
        "over_limits": _over_limits(job, tally),
        "images": {
            "counted": tally.num_images,
            "without_truth": tally.num_without_truth,
            **{name: dict(sorted(run.statuses.items())) for name, run in tally.runs.items()},
        },
        "figures": {
            name: {figure: estimates[figure].to_plain() for figure in results.scalars}
            for name, estimates in results.estimates.items()
        },
        "instances": {"left_out": tally.why_no_objects or None, "figures": _object_figures(results.objects)},
    }


def _object_figures(results: ObjectResults | None) -> dict[str, Any]:
    if results is None:
        return {}
    return {
        name: {figure: found[figure].to_plain() for figure in results.scalars}
        for name, found in results.estimates.items()
    }


def _over_limits(job: EvaluateJob, tally: Tally) -> list[str]:
    """One sentence per limit that was passed."""
    limits, over = job.limits, []
    for name, run in tally.runs.items():
        failed = run.statuses["failed"]
        if failed > limits.max_failed_share * tally.num_images:
            over.append(
                f"{name}: {failed} of {tally.num_images} images failed (limits.max_failed_share is"
                f" {limits.max_failed_share:.2%}); the first: {next(iter(run.not_labelled), '')}"
            )
        if limits.needs_finished_runs and (unfinished := _unfinished(job.runs[name].storage)):
            over.append(f"{name}: {unfinished}; what is missing there is in no figure")
    read = tally.num_images + tally.num_without_truth
    if tally.num_without_truth > limits.max_without_truth_share * read:
        over.append(
            f"{tally.num_without_truth} of {read} images have no usable truth (limits.max_without_truth_share is"
            f" {limits.max_without_truth_share:.2%}): {next(iter(tally.without_truth.values()), '')}"
        )
    return over


def _unfinished(storage: Storage) -> str:
    """What a run's own summary says is missing; empty where it is whole."""
    if not storage.exists(SUMMARY):
        return "the run has no summary.json, so it may not be finished"
    shards = json.loads(storage.read(SUMMARY)).get("shards", {})
    missing = [f"{n} shards pending" for n in [shards.get("pending")] if n]
    missing += [f"{len(shards[what])} shards {what}" for what in ("failed", "damaged") if shards.get(what)]
    return ", ".join(missing)
