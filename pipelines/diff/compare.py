"""The whole of a diff: two outputs in, everything that differs out."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ovsops.errors import OutputError
from pipelines.diff.attribution import Attribution, attribute
from pipelines.diff.changes import RunChanges, changes_between
from pipelines.diff.classes import JoinedClasses, join_classes
from pipelines.diff.config import DiffConfig, DiffLimits
from pipelines.diff.drift import DriftReport, compare_populations
from pipelines.diff.index import index_images, pair_images
from pipelines.diff.labels import IOU_BINS, ComparedRun, LabelTotals, compare_labels
from pipelines.diff.matching import FATES
from pipelines.diff.population import features_of, measure
from pipelines.export import vocabulary_of
from pipelines.ledger import Ledger
from pipelines.manifest import read_manifest
from pipelines.storage import Storage

logger = logging.getLogger(__name__)

DIFF_VERSION = 1
"""Of the JSON document."""
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What one side is."""

    url: str
    recipe_hash: str
    shards: int
    images: int
    labels: int


@dataclass(frozen=True, kw_only=True)
class DiffResult:
    """All that a diff found."""

    runs: tuple[RunFacts, RunFacts]
    classes: JoinedClasses
    changes: RunChanges
    labels: LabelTotals
    drift: DriftReport
    attribution: Attribution
    config: DiffConfig

    @property
    def label_alarms(self) -> tuple[str, ...]:
        """Limits that the labels of the same images passed."""
        return limit_alarms(self.labels, self.config.limits)

    @property
    def alarms(self) -> tuple[str, ...]:
        """Every reason to look."""
        return (*self.label_alarms, *self.drift.alarms)

    def to_plain(self) -> dict[str, Any]:
        """For JSON. Distances are unrounded; nothing depends on clocks or hosts."""
        return {
            "diff_version": DIFF_VERSION,
            "runs": {"first": asdict(self.runs[0]), "second": asdict(self.runs[1])},
            "alarms": list(self.alarms),
            "changes": {
                cause: [
                    {"name": change.name, "earlier": change.earlier, "now": change.now}
                    for change in self.changes.of(cause)
                ]
                for cause in ("data", "checkpoint", "recipe", "code")
            },
            "shards": asdict(self.changes.shards),
            "classes": {
                "moved_ids": list(self.classes.moved_ids),
                "renamed": list(self.classes.renamed),
            },
            "labels": labels_to_plain(self.labels, self.classes),
            "drift": drift_to_plain(self.drift),
            "attribution": asdict(self.attribution),
            "config": asdict(self.config),
        }


def diff_runs(first: Storage, second: Storage, config: DiffConfig | None = None) -> DiffResult:
    """Compare two outputs of the label job. Reads tables shard by shard, writes nothing.

    Raises `OutputError` for what is no output, has no committed shard, or has tables that cannot be trusted.
    """
    config = config or DiffConfig()
    manifests = [read_manifest(storage) for storage in (first, second)]
    classes = join_classes(*(vocabulary_of(storage) for storage in (first, second)))
    runs = []
    for storage, places in ((first, classes.first), (second, classes.second)):
        commits = Ledger(storage).read_all()
        if not commits:
            raise OutputError(
                f"{storage.url}: no shard is committed, so there is nothing to compare; run it first"
            )
        index = index_images(storage, commits)
        runs.append(ComparedRun(storage=storage, commits=commits, index=index, places=places))
    one, two = runs
    pairs = pair_images(one.index, two.index)
    logger.info("%d and %d images, %d the same", len(one.index), len(two.index), len(pairs))
    labels = compare_labels(one, two, pairs, classes, config.match)
    outcomes = sorted({*one.index.outcome_names, *two.index.outcome_names})
    features = features_of(len(classes), len(outcomes))
    earlier, now = (
        measure(run, classes, outcomes, max_images=config.drift.max_images, seed=config.drift.seed)
        for run in runs
    )
    drift = compare_populations(
        earlier, now, features, pairs, config.drift, class_names=classes.names, outcomes=outcomes
    )
    changes = changes_between(manifests[0], manifests[1], one.commits, two.commits)
    return DiffResult(
        runs=(_facts(one, manifests[0]), _facts(two, manifests[1])),
        classes=classes,
        changes=changes,
        labels=labels,
        drift=drift,
        attribution=attribute(changes, labels, drift, num_images=(len(one.index), len(two.index))),
        config=config,
    )


def limit_alarms(labels: LabelTotals, limits: DiffLimits) -> tuple[str, ...]:
    """One sentence for each limit that the labels of the same images passed."""
    found = []
    if labels.changed_share > limits.max_changed_share:
        found.append(
            f"{labels.changed_share:.1%} of the labels of the same images changed (limits.max_changed_share is"
            f" {limits.max_changed_share:.1%})"
        )
    if labels.decisions_share > limits.max_decisions_share:
        found.append(
            f"the decision on {labels.decisions_share:.1%} of the matched labels changed (limits.max_decisions_share is"
            f" {limits.max_decisions_share:.1%})"
        )
    return tuple(found)


def _facts(run: ComparedRun, manifest: Mapping[str, Any]) -> RunFacts:
    return RunFacts(
        url=run.storage.url,
        recipe_hash=str(manifest.get("recipe_hash", "")),
        shards=len(run.commits),
        images=len(run.index),
        labels=sum(commit.instances for commit in run.commits),
    )


def labels_to_plain(labels: LabelTotals, classes: JoinedClasses) -> dict[str, Any]:
    """Totals and classes of the same images."""
    order = np.argsort(-(labels.in_first + labels.in_second), kind="stable")
    return {
        "images": labels.images,
        "images_unchanged": labels.images_unchanged,
        "outcomes_changed": {f"{a} -> {b}": n for (a, b), n in sorted(labels.outcomes.items())},
        "fates": labels.by_fate,
        "identical": labels.identical,
        "changed_share": labels.changed_share,
        "decisions_share": labels.decisions_share,
        "recalibrated": labels.recalibrated,
        "decisions_changed": {f"{a} -> {b}": n for (a, b), n in sorted(labels.decisions.items())},
        "iou": {
            "histogram": labels.ious.tolist(),
            "quantiles": {f"{q:g}": iou_quantile(labels, q) for q in _QUANTILES},
        },
        "score_difference": {
            "mean": labels.score_difference_sum / labels.matched if labels.matched else None,
            "max": labels.score_difference_max if labels.matched else None,
        },
        "renames": [
            {"first": classes.names[a], "second": classes.names[b], "labels": n}
            for (a, b), n in sorted(labels.renames.items(), key=lambda item: (-item[1], item[0]))
        ],
        "classes": [
            {
                "name": classes.names[place],
                "first": int(labels.in_first[place]),
                "second": int(labels.in_second[place]),
                **dict(zip(FATES, labels.fates[place].tolist(), strict=True)),
            }
            for place in order.tolist()
            if labels.in_first[place] or labels.in_second[place]
        ],
        "most_changed": [asdict(example) for example in labels.examples],
    }


def iou_quantile(labels: LabelTotals, share: float) -> float | None:
    """IoU that this share of the matched labels does not exceed, in steps of 0.01 (lower edge); identical is 1."""
    total = int(labels.ious.sum())
    if not total:
        return None
    cell = int(np.searchsorted(labels.ious.cumsum(), max(share * total, 1e-9)))
    # Whole pixels for whole pixels: the last cell is from 0.99 on, and mostly exactly 1.
    is_whole = cell == IOU_BINS - 1 and share * total > total - labels.identical
    return 1.0 if is_whole else cell / IOU_BINS


def drift_to_plain(drift: DriftReport) -> dict[str, Any]:
    """Features, tests and what was permuted."""
    failed = drift.failed
    return {
        "not_tested": drift.not_tested,
        "images_permuted": list(drift.num_permuted),
        "pairs_permuted": drift.num_pairs,
        "features": [
            {
                **{k: v for k, v in asdict(each).items() if k != "medians"},
                "medians": None
                if each.medians is None
                else [None if np.isnan(value) else value for value in each.medians],
            }
            for each in drift.features
        ],
        "failed_share": None
        if failed.shift is None
        else {**asdict(failed.shift), "p_adjusted": failed.p_adjusted, "alarm": failed.alarm},
    }
