"""What lies beside a label run and is about it: evaluations, hard negatives, what its scores were calibrated with.

Found by content, never by name: an evaluation names the run and a hash of its labels, negatives name its regions.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovsops.errors import CheckpointError, ConfigError
from pipelines.ledger import tables_sha256
from pipelines.report.facts import RunFacts
from pipelines.report.negatives_beside import FoundNegatives, find_negatives
from pipelines.storage import local_path, scheme_of

if TYPE_CHECKING:
    from ovsops.regions.calibration import ScoreCalibrator

logger = logging.getLogger(__name__)

METRICS = "metrics.json"
_FORMAT = 1
"""Version of `metrics.json` that is read."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation of the run."""

    path: str
    truth: str
    num_images: int
    figures: Mapping[str, Mapping[str, float | None]]
    """Of the map: value, low, high by name."""
    instance_figures: Mapping[str, Mapping[str, float | None]]
    reliability: Mapping[str, Sequence[tuple[float, float, int]]]
    """Mean score, share of right ones and how many, of bins that hold some: `regions`, `raw`, `calibrated`."""
    class_figures: Mapping[int, float]
    """IoU by class id."""
    is_stale: bool
    """The labels were written anew since."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """All that was found."""

    evaluations: tuple[Evaluation, ...] = ()
    calibrator: "ScoreCalibrator | None" = None
    why_no_calibrator: str = ""
    negatives: FoundNegatives = field(default_factory=FoundNegatives)


def look_beside(
    facts: RunFacts,
    extra: Sequence[Path] = (),
    *,
    regions: Collection[str] = (),
    shards: Collection[str] = (),
) -> Beside:
    """Look in the run's folder, its neighbours and `extra`; a run on S3 has `extra` alone.

    Negatives are kept of `regions`; their `shards` are looked at first.
    """
    for folder in extra:
        if not folder.is_dir():
            raise ConfigError(f"--beside {folder}: there is no such folder; name the output of another job")
    folders = list(_folders(facts, extra))
    calibrator, why = _calibrator(facts)
    return Beside(
        evaluations=tuple(_evaluations(facts, folders)),
        calibrator=calibrator,
        why_no_calibrator=why,
        negatives=find_negatives(
            folders,
            strangers=frozenset(folder for folder in folders if _is_neighbour(folder, facts, extra)),
            recipe_hash=str(facts.manifest.get("recipe_hash", "")),
            regions=frozenset(regions),
            shards=frozenset(shards),
        ),
    )


def _folders(facts: RunFacts, extra: Sequence[Path]) -> Iterator[Path]:
    yield from extra
    if scheme_of(facts.output) != "file":
        return
    own = local_path(facts.output)
    known = {path.resolve() for path in (own, *extra)}
    for parent in (own, own.parent):
        try:
            yield from sorted(p for p in parent.iterdir() if p.is_dir() and p.resolve() not in known)
        except OSError as error:
            logger.warning("%s cannot be listed: %s", parent, error)


def _is_neighbour(folder: Path, facts: RunFacts, extra: Sequence[Path]) -> bool:
    """Whether a folder was found beside the run: neither named, nor in it."""
    return folder not in extra and folder.parent != local_path(facts.output)


def _evaluations(facts: RunFacts, folders: Sequence[Path]) -> Iterator[Evaluation]:
    labels = tables_sha256(facts.commits)
    for folder in folders:
        try:
            document = json.loads((folder / METRICS).read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read: %s", folder / METRICS, error)
            continue
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            continue
        for name, run in document.get("labelled_runs", {}).items():
            if run.get("labels") == facts.output or run.get("tables_sha256") == labels:
                yield _evaluation(folder, document, name, is_stale=run.get("tables_sha256") != labels)


def _evaluation(folder: Path, document: Mapping[str, Any], name: str, *, is_stale: bool) -> Evaluation:
    run = document["runs"][name]
    objects = run.get("objects") or {}
    reliability = {"regions": _points(run.get("reliability", ()), "regions")}
    for kind, bins in objects.get("reliability", {}).items():
        reliability[kind] = _points(bins, "instances")
    return Evaluation(
        path=str(folder),
        truth=str(document.get("truth", "")),
        num_images=int(document.get("num_images", 0)),
        figures=run.get("figures", {}),
        instance_figures=objects.get("figures", {}),
        reliability={kind: points for kind, points in reliability.items() if points},
        class_figures={
            row["id"]: row["iou"]["value"]
            for row in run.get("classes", ())
            if row.get("iou", {}).get("value") is not None
        },
        is_stale=is_stale,
    )


def _points(bins: Sequence[Mapping[str, Any]], what: str) -> list[tuple[float, float, int]]:
    return [
        (row["sum_of_scores"] / row[what], row["right"] / row[what], int(row[what]))
        for row in bins
        if row[what]
    ]


def _calibrator(facts: RunFacts) -> "tuple[ScoreCalibrator | None, str]":
    """The calibrator that the recipe names, where its file is still there and still the same."""
    settings = facts.manifest.get("settings", {}).get("calibrator") or {}
    source = settings.get("source") if isinstance(settings, Mapping) else None
    if not source:
        return None, ""
    from ovsops.regions.calibration import ScoreCalibrator  # loads torch, which no other part of a page needs

    try:
        return ScoreCalibrator.from_json(json.loads(Path(source).read_bytes())), ""
    except (OSError, ValueError, CheckpointError) as error:
        return None, f"{type(error).__name__}: {error}"
