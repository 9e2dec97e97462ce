"""What is done in an output, what failed and why: from the ledger and the tables, changing nothing."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobs.logs import escape_controls
from ovsops.errors import ConfigError, StorageError
from pipelines.counted import counted
from pipelines.ledger import Commit, Ledger
from pipelines.lock import LOCK
from pipelines.manifest import read_manifest
from pipelines.parts import read_part
from pipelines.redact import redact
from pipelines.shards import expand_inputs
from pipelines.storage import Storage, StorageOptions, open_storage

EXAMPLES_PER_CODE = 3
SHARDS_FOR_EXAMPLES = 50
"""Tables that are opened for examples at most: status of a large output stays quick."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """State of an output."""

    output: str
    recipe_hash: str
    commits: tuple[Commit, ...]
    pending: tuple[str, ...] | None
    """Names of shards that are not done; None when the inputs cannot be listed."""
    pending_unknown: str
    """Why the inputs cannot be listed."""
    broken: tuple[str, ...]
    """Sentences about what must not be: the invariant, or a table that is missing."""
    unpublished: tuple[str, ...]
    """Committed shards whose tables are not in place: the next `run` puts them there."""
    examples: Mapping[str, Sequence[tuple[str, str, str]]]
    """Shard, key and message of a few failed images by code."""
    holder: Mapping[str, Any] | None
    """Who holds the lock."""

    @property
    def totals(self) -> dict[str, int]:
        """Images read, labelled, skipped and failed; regions."""
        names = ("read", "labelled", "skipped", "failed", "instances")
        return {name: sum(getattr(c, name) for c in self.commits) for name in names}

    @property
    def codes(self) -> dict[str, int]:
        """Failed and skipped images by code."""
        counts: Counter[str] = Counter()
        for commit in self.commits:
            counts.update(commit.codes)
        return dict(counts.most_common())

    def to_plain(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "output": self.output,
            "recipe_hash": self.recipe_hash,
            "shards": {
                "committed": len(self.commits),
                "pending": None if self.pending is None else len(self.pending),
                "unpublished": list(self.unpublished),
                "damaged": {c.name: f"{c.damage_code}: {c.damage}" for c in self.commits if not c.complete},
            },
            "images": self.totals | {"invariant_holds": not self.broken},
            "failures_by_code": self.codes,
            "examples": {
                code: [dict(zip(("shard", "key", "message"), e, strict=True)) for e in some]
                for code, some in self.examples.items()
            },
            "broken": list(self.broken),
            "lock": self.holder and {k: self.holder[k] for k in ("host", "pid", "heartbeat")},
        }


def read_status(output: str, options: StorageOptions) -> Status:
    """Look at an output. Raises OutputError if no run wrote there."""
    storage = open_storage(output, options)
    manifest = read_manifest(storage)
    commits = tuple(Ledger(storage).read_all())
    tables = {info.path: info.size for kind in ("images", "instances") for info in storage.list(kind)}
    unpublished, broken = [], []
    for commit in commits:
        absent = [t for t in commit.tables.values() if t["published"] not in tables]
        waiting = [t for t in commit.tables.values() if storage.exists(t["sealed"])] if absent else []
        if len(waiting) < len(absent):
            broken.append(
                f"shard {commit.name} is committed, but its tables are gone: delete {commit.path} and run again"
            )
        elif absent:
            unpublished.append(commit.name)
        broken += [
            f"{t['published']} has {tables[t['published']]} bytes, {t['num_bytes']} were committed: "
            f"delete {commit.path} and run again"
            for t in commit.tables.values()
            if tables.get(t["published"], t["num_bytes"]) != t["num_bytes"]
        ]
        try:
            commit.check_invariant()
        except AssertionError as error:
            broken.append(str(error))
    pending, why_unknown = _pending(storage, manifest, options)
    published = [c for c in commits if c.name not in unpublished]
    return Status(
        output=storage.url,
        recipe_hash=str(manifest.get("recipe_hash", "")),
        commits=commits,
        pending=pending,
        pending_unknown=why_unknown,
        broken=tuple(broken),
        unpublished=tuple(unpublished),
        examples=_examples(storage, published) if not broken else {},
        holder=_lock_holder(storage),
    )


def _pending(
    storage: Storage, manifest: Mapping[str, Any], options: StorageOptions
) -> tuple[tuple[str, ...] | None, str]:
    source = manifest.get("settings", {}).get("input", {})
    only = set(source.get("only", ()))
    try:
        shards = [
            shard
            for shard in expand_inputs(source.get("shards", []), options)
            if not only or shard.name in only
        ]
        return tuple(s.name for s in Ledger(storage).pending(shards, options).shards), ""
    except (ConfigError, StorageError) as error:
        return None, str(error)


def _examples(storage: Storage, commits: Sequence[Commit]) -> dict[str, list[tuple[str, str, str]]]:
    """A few failed images of every code."""
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    with_failures = [c for c in commits if c.codes]
    for commit in with_failures[:SHARDS_FOR_EXAMPLES]:
        if all(len(found[code]) >= EXAMPLES_PER_CODE for code in commit.codes):
            continue
        table = commit.tables["images"]
        images = read_part(storage, table["published"]).select(["key", "error_code", "error_message"])
        for row in images.filter(pc.is_valid(images.column("error_code"))).to_pylist():
            if len(found[row["error_code"]]) < EXAMPLES_PER_CODE:
                found[row["error_code"]].append((commit.name, row["key"], row["error_message"] or ""))
    return dict(found)


def _lock_holder(storage: Storage) -> dict[str, Any] | None:
    try:
        holder: dict[str, Any] = json.loads(storage.read(LOCK))
    except FileNotFoundError:
        return None
    return holder


def render_status(status: Status) -> RenderableType:
    """Tables for a terminal. Names and messages come from archives: control characters are escaped."""
    parts: list[RenderableType] = [_counts(status)]
    if status.codes:
        parts += ["", _failures(status)]
    for line in _remarks(status):
        parts.append(Text(escape_controls(redact(line)), style="yellow"))
    return Group(*parts)


def _counts(status: Status) -> Table:
    totals = status.totals
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    pending = "pending unknown" if status.pending is None else f"{len(status.pending)} pending"
    table.add_row("shards", str(len(status.commits)), pending)
    table.add_row(
        "images read", str(totals["read"]), "= labelled + skipped + failed" if not status.broken else ""
    )
    for name in ("labelled", "skipped", "failed"):
        table.add_row(
            name, str(totals[name]), counted(totals["instances"], "regions") if name == "labelled" else ""
        )
    return table


def _failures(status: Status) -> Table:
    table = Table("code", "images", "for example", "what was wrong", box=None, pad_edge=False)
    for code, count in status.codes.items():
        rows = status.examples.get(code) or [("", "", "")]
        for number, (shard, key, message) in enumerate(rows):
            place = Text(escape_controls(f"{shard} {key}"))
            says = Text(escape_controls(redact(message)))
            table.add_row(code if not number else "", str(count) if not number else "", place, says)
    return table


def _remarks(status: Status) -> list[str]:
    lines = [f"BROKEN: {sentence}" for sentence in status.broken]
    if status.unpublished:
        names = ", ".join(status.unpublished[:5])
        lines.append(f"committed, not yet in place (the next run does that): {names}")
    lines += [f"damaged: {c.name}: {c.damage_code} {c.damage}" for c in status.commits if not c.complete]
    if status.pending is None:
        lines.append(f"the inputs cannot be listed: {status.pending_unknown}")
    elif status.pending:
        lines.append(f"not done: {', '.join(status.pending[:5])}{' ...' if len(status.pending) > 5 else ''}")
    if status.holder:
        age = time.time() - status.holder["heartbeat"]
        lines.append(
            f"locked by process {status.holder['pid']} on {status.holder['host']}, heartbeat {age:.0f} s ago"
        )
    return lines


def print_status(status: Status, console: Console) -> None:
    """Counts, failures, remarks."""
    console.print(f"[bold]{escape_controls(status.output)}[/]  recipe {status.recipe_hash[:12]}")
    console.print(render_status(status))
