"""What lies beside a label run and is about it: evaluations, hard negatives, what its scores were calibrated with.

Found by content, never by name: an evaluation names the run and a hash of its labels, negatives name its regions.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ovsops.errors import CheckpointError, ConfigError
from pipelines.ledger import tables_sha256
from pipelines.report.facts import RunFacts
from pipelines.storage import local_path, scheme_of

if TYPE_CHECKING:
    from ovsops.regions.calibration import ScoreCalibrator

logger = logging.getLogger(__name__)

METRICS = "metrics.json"
_FORMAT = 1
"""Version of `metrics.json` that is read."""
_MAX_FILES = 256
"""Parquet files that are searched for negatives at most."""
_LABELS = ("images", "instances")
"""Folders of tables that hold labels."""
_TABLE = ("instance_uid", "positive", "negatives", "types")
"""Columns of the negatives job's tables."""


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
class Negatives:
    """Hard negatives of one region."""

    positive: str
    texts: tuple[str, ...]
    types: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Beside:
    """All that was found."""

    evaluations: tuple[Evaluation, ...] = ()
    calibrator: "ScoreCalibrator | None" = None
    why_no_calibrator: str = ""
    negatives: Mapping[str, Negatives] = field(default_factory=dict)
    """By `instance_uid`, of the regions that were asked for."""
    num_negatives: int = 0
    """Regions with negatives in all that was read."""
    negatives_from: tuple[str, ...] = ()


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
    negatives, number, sources = _negatives(folders, frozenset(regions), frozenset(shards))
    return Beside(
        evaluations=tuple(_evaluations(facts, folders)),
        calibrator=calibrator,
        why_no_calibrator=why,
        negatives=negatives,
        num_negatives=number,
        negatives_from=sources,
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


def _negatives(
    folders: Sequence[Path], regions: frozenset[str], shards: Collection[str]
) -> tuple[dict[str, Negatives], int, tuple[str, ...]]:
    """Hard negatives in Parquet files of the folders, by region: tables of the negatives job, and training sets.

    Files that are called after one of `shards` are read first.
    """
    found: dict[str, Negatives] = {}
    number, sources, left = 0, [], _MAX_FILES
    for folder in folders:
        before = number
        paths = [p for p in folder.rglob("*.parquet") if p.parent.name not in _LABELS and not p.is_symlink()]
        paths.sort(key=lambda path: (path.stem not in shards, path))
        for path in paths[:left]:
            try:
                number += _read_negatives(path, regions, found)
            except (OSError, pa.ArrowException) as error:
                logger.warning("%s cannot be read for negatives: %s", path, error)
        if len(paths) > left:
            logger.warning("%s: %d of its files were not read for negatives", folder, len(paths) - left)
        left = max(0, left - len(paths))
        if number > before:
            sources.append(str(folder))
    return found, number, tuple(sources)


def _read_negatives(path: Path, regions: frozenset[str], found: dict[str, Negatives]) -> int:
    """Add a file's negatives of the wanted regions; how many regions have some."""
    file = pq.ParquetFile(path)
    names = set(file.schema_arrow.names)
    if names >= set(_TABLE):
        return _read_table(file, regions, found)
    if names >= {"regions", "short_caption"}:
        return _read_training_set(file, regions, found)
    return 0


def _read_table(file: pq.ParquetFile, regions: frozenset[str], found: dict[str, Negatives]) -> int:
    number, wanted = 0, pa.array(sorted(regions), pa.string())
    for batch in file.iter_batches(columns=list(_TABLE)):
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(pc.is_valid(rows.column("negatives")))
        number += rows.num_rows
        for row in rows.filter(pc.is_in(rows.column("instance_uid"), value_set=wanted)).to_pylist():
            found[row["instance_uid"]] = Negatives(
                positive=row["positive"] or "",
                texts=tuple(row["negatives"]),
                types=tuple(row["types"] or ()),
            )
    return number


def _read_training_set(file: pq.ParquetFile, regions: frozenset[str], found: dict[str, Negatives]) -> int:
    number = 0
    for batch in file.iter_batches(columns=["regions"], batch_size=1024):
        for region in (each for row in batch.column("regions").to_pylist() for each in row or ()):
            if not region["flag_short_neg"]:
                continue
            number += 1
            if region["region_uid"] in regions:
                found[region["region_uid"]] = Negatives(
                    positive=region["short_expr"],
                    texts=tuple(region["short_expr_negs"]),
                    types=tuple(region["neg_types"]),
                )
    return number
