"""The sample's own record, `sample.json`: which rows were drawn, from which strata, of which labels."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ovsops.errors import ConfigError, OutputError
from pipelines.audit.config import SampleConfig
from pipelines.audit.sample import Sample, Stratum, chance_of
from pipelines.ledger import Commit

RECORD, RECORD_VERSION = "sample.json", 1


@dataclass(frozen=True, kw_only=True)
class RecordedRow:
    """What is known of a drawn label without its tables."""

    stratum: int
    category_id: int
    class_name: str
    score: float
    """Before calibration."""
    chance: float
    """Calibrated where the run was, else the score."""
    is_box: bool
    """Whether a detector found it: the scores that calibrators are about."""


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """Content of `sample.json`."""

    run: str
    recipe_hash: str
    tables_sha256: str
    """Of the labels that were drawn from."""
    seed: int
    strata: tuple[Stratum, ...]
    sizes: tuple[int, ...]
    rows: Mapping[str, RecordedRow]
    """By instance uid."""

    def to_bytes(self) -> bytes:
        """JSON."""
        plain = {"audit_version": RECORD_VERSION, **asdict(self)}
        return (json.dumps(plain, indent=1, ensure_ascii=True) + "\n").encode()


def record_of(
    sample: Sample, config: SampleConfig, *, run: str, recipe_hash: str, tables_sha256: str
) -> SampleRecord:
    """The record of a sample."""
    strata = list(sample.sizes)
    return SampleRecord(
        run=run,
        recipe_hash=recipe_hash,
        tables_sha256=tables_sha256,
        seed=config.seed,
        strata=tuple(strata),
        sizes=tuple(sample.sizes[each] for each in strata),
        rows={
            row.label["instance_uid"]: RecordedRow(
                stratum=strata.index(row.stratum),
                category_id=row.label["category_id"],
                class_name=row.class_name,
                score=float(row.label["score"]),
                chance=chance_of(row.label),
                is_box=row.label["detector"] is not None,
            )
            for row in sample.rows
        },
    )


def read_record(path: Path) -> SampleRecord:
    """Read `sample.json`. Raises `ConfigError` for what is none."""
    try:
        plain = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); it lies beside the form, or name it with --sample"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); draw the sample anew") from error
    if not isinstance(plain, dict) or plain.pop("audit_version", None) != RECORD_VERSION:
        raise ConfigError(f"{path}: is no record of a sample that this version reads; draw the sample anew")
    try:
        rows = {uid: RecordedRow(**row) for uid, row in plain.pop("rows").items()}
        strata = tuple(Stratum(**each) for each in plain.pop("strata"))
        sizes = tuple(int(size) for size in plain.pop("sizes"))
        record = SampleRecord(strata=strata, sizes=sizes, rows=rows, **plain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: was changed ({error!r}); draw the sample anew") from error
    if len(strata) != len(sizes) or not all(0 <= row.stratum < len(strata) for row in rows.values()):
        raise ConfigError(f"{path}: was changed (strata and rows do not fit); draw the sample anew")
    return record


def tables_sha256(commits: Sequence[Commit]) -> str:
    """One hash over the bytes of all committed tables: which labels an audit is about."""
    digest = hashlib.sha256()
    for commit in commits:
        for kind in sorted(commit.tables):
            digest.update(f"{kind} {commit.shard} {commit.tables[kind]['sha256']}\n".encode())
    return digest.hexdigest()


def check_same_labels(record: SampleRecord, commits: Sequence[Commit], where: str) -> None:
    """Raise `OutputError` where a run's labels are no longer those that the sample was drawn from."""
    if tables_sha256(commits) != record.tables_sha256:
        raise OutputError(
            f"{where}: its labels are not those that the sample was drawn from ({record.run}): another"
            " run, or shards were"
            " added or labelled again since; draw a new sample, or name the run as it was"
        )
