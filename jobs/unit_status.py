"""What is done in an output of a job over committed shards, and what is not: changes nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.logs import escape_controls
from jobs.unit_jobs import unit_recipe_of_output
from ovsops.errors import OutputError, OvsopsError
from pipelines.dataset_stage import SAMPLES
from pipelines.embedding import EMBEDDED_KINDS
from pipelines.labelled_shards import open_label_run
from pipelines.ledger import Ledger
from pipelines.manifest import UNIT_JOBS, job_of_manifest, read_manifest
from pipelines.mine_job import MINED_FILE, unmined
from pipelines.negatives import NEGATIVES_KINDS
from pipelines.redact import redact
from pipelines.storage import StorageOptions, open_storage
from pipelines.summary import SUMMARY
from pipelines.unit_tools import published_sizes
from pipelines.units import UnitCommit, row_totals, unit_ledger

_KINDS = {"negatives": NEGATIVES_KINDS, "dataset": (SAMPLES,), "mine": EMBEDDED_KINDS}
_READ = {"negatives": "regions", "dataset": "images", "mine": "regions"}
_KEPT = {"negatives": "with negatives", "dataset": "in the set", "mine": "with a vector"}


@dataclass(frozen=True, kw_only=True)
class UnitStatus:
    """State of an output."""

    output: str
    job: str
    recipe_hash: str
    commits: tuple[UnitCommit, ...]
    pending: tuple[str, ...] | None
    """Names of shards that are not done; None when the label run cannot be read."""
    pending_unknown: str
    broken: tuple[str, ...]
    """Sentences about what must not be: rows that do not add up, files that are gone."""
    unpublished: tuple[str, ...]
    """Committed shards whose files are not in place, and pairs that are gone: the next `run` puts them there."""
    last: Mapping[str, Any]
    """`summary.json` of the last start; empty where there is none."""

    @property
    def rows(self) -> dict[str, Any]:
        """Rows read, kept and left out by reason."""
        return row_totals(self.commits, "kept")

    def to_plain(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "output": self.output,
            "job": self.job,
            "recipe_hash": self.recipe_hash,
            "shards": {
                "committed": len(self.commits),
                "pending": None if self.pending is None else len(self.pending),
                "unpublished": list(self.unpublished),
                "failed": dict(self.last.get("shards", {}).get("failed", {})),
            },
            "rows": self.rows | {"invariant_holds": not self.broken},
            "broken": list(self.broken),
            "last_start": {name: self.last.get(name) for name in ("state", "error", "over_limits")},
        }


def read_unit_status(output: str, options: StorageOptions) -> UnitStatus:
    """Look at an output. Raises OutputError if no run wrote there, or one of another job."""
    storage = open_storage(output, options)
    manifest = read_manifest(storage)
    job = job_of_manifest(manifest)
    if job not in UNIT_JOBS:
        raise OutputError(
            f"{storage.url} is an output of the {job} job, not of one of {', '.join(UNIT_JOBS)}"
        )
    ledger = unit_ledger(storage, _KINDS[job])
    commits = tuple(ledger.read_all())
    there = published_sizes(storage, commits)
    broken, unpublished = [], []
    for commit in commits:
        tables = list(commit.tables.values())
        absent = [table for table in tables if table["published"] not in there]
        if any(not storage.exists(table["sealed"]) for table in absent):
            broken.append(
                f"shard {commit.name} is committed, but files of it are gone: delete {commit.path} and run again"
            )
        elif absent:
            unpublished.append(commit.name)
        broken += [
            f"{table['published']} has {there[table['published']]} bytes, {table['num_bytes']} were committed: delete"
            f" {commit.path} and run again"
            for table in tables
            if there.get(table["published"], table["num_bytes"]) != table["num_bytes"]
        ]
        try:
            commit.check_invariant()
        except AssertionError as error:
            broken.append(str(error))
    if job == "mine" and storage.exists(MINED_FILE):
        unpublished += unmined(storage)
    pending, why_unknown = _pending(output, options, ledger)
    return UnitStatus(
        output=storage.url,
        job=job,
        recipe_hash=str(manifest.get("recipe_hash", "")),
        commits=commits,
        pending=pending,
        pending_unknown=why_unknown,
        broken=tuple(broken),
        unpublished=tuple(unpublished),
        last=json.loads(storage.read(SUMMARY)) if storage.exists(SUMMARY) else {},
    )


def _pending(
    output: str, options: StorageOptions, ledger: Ledger[UnitCommit]
) -> tuple[tuple[str, ...] | None, str]:
    try:
        loaded = unit_recipe_of_output(output, options)
        assert loaded is not None  # the caller has looked
        labels = open_label_run(loaded.recipe.labels, loaded.recipe.storage)
        shards = ledger.pending(labels.shards, loaded.recipe.storage).shards
    except OvsopsError as error:
        return None, str(error)
    return tuple(shard.name for shard in shards), ""


def print_unit_status(status: UnitStatus, console: Console) -> None:
    """Counts, reasons, remarks."""
    console.print(
        f"[bold]{escape_controls(status.output)}[/]  {status.job}  recipe {status.recipe_hash[:12]}"
    )
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    pending = "pending unknown" if status.pending is None else f"{len(status.pending)} pending"
    rows = status.rows
    table.add_row("shards", str(len(status.commits)), pending)
    adds_up = "= kept + left out" if rows["invariant_holds"] else ""
    table.add_row(f"{_READ[status.job]} read", str(rows["read"]), adds_up)
    table.add_row(_KEPT[status.job], str(rows["kept"]), "")
    for code, count in rows["by_reason"].items():
        table.add_row(code, str(count), "")
    console.print(table)
    for line in _remarks(status):
        console.print(escape_controls(redact(line)), style="yellow", markup=False, soft_wrap=True)


def _remarks(status: UnitStatus) -> list[str]:
    lines = [f"BROKEN: {sentence}" for sentence in status.broken]
    if status.unpublished:
        names = ", ".join(status.unpublished[:5])
        lines.append(f"committed, not yet in place (the next run does that): {names}")
    if status.pending is None:
        lines.append(f"the label run cannot be read: {status.pending_unknown}")
    elif status.pending:
        more = " ..." if len(status.pending) > 5 else ""
        lines.append(f"not done: {', '.join(status.pending[:5])}{more}")
    failed = status.last.get("shards", {}).get("failed", {})
    lines += [f"failed in the last start: {name}: {message}" for name, message in failed.items()]
    if status.last.get("state") not in (None, "done"):
        lines.append(
            f"the last start ended {status.last['state']}: {status.last.get('error') or 'interrupted'}"
        )
    return lines + [f"over the limits: {reason}" for reason in status.last.get("over_limits", [])]
