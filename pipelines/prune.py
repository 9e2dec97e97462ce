"""Which old outputs may go, and which of their files: a plan that is shown, then carried out.

Only what a run of ovsops demonstrably wrote is ever in a plan:

    RUN/run.json                      our manifest: schema version, recipe, recipe hash
    RUN/commits/S.json                a commit record, of any job, that names itself and its tables
    RUN/KIND/S.parquet                named by a current commit record, with the size and SHA-256 it recorded
    RUN/summary.json                  our summary, in a folder with a manifest

Everything else stays: files that nothing vouches for, files whose bytes are not those recorded, symbolic links, and
whatever a link leads to. A folder goes only where it is empty. A run is not touched at all while its lock is there,
where it is not finished or marked to be kept, where a file of it is younger than the
run's end (then somebody worked on it since), where no record with the recipe of its manifest is there, or where a
record names files that are no tables of its shard: that is a training set, and its manifest says what it is made of.
Right before deletion a file must still have the size and tag of the plan.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.lock import LOCK
from pipelines.manifest import MANIFEST
from pipelines.storage import ObjectInfo, Storage
from pipelines.summary import SUMMARY

logger = logging.getLogger(__name__)

_SLACK_S = 600.0
"""A file may be this much younger than its run's end: a summary is written after the clock was read."""
_BLOCK = 2**20


KEEP = "KEEP"
"""A run with a file of this name stays."""


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """A file that may go."""

    path: str
    """Below the root."""
    size: int
    tag: str
    """As it was when the plan was made."""


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """What would be deleted, and what stays, with reasons."""

    delete: tuple[PlannedFile, ...]
    """In the order of deletion: of a run the tables first, then records, summary and manifest, so that a plan that was
    cut short can be made again. One that ends between the last record and the manifest leaves summary and manifest."""
    runs: tuple[str, ...]
    """Runs that these files are of."""
    kept_runs: Mapping[str, str]
    """Reason by run."""
    kept_files: Mapping[str, str]
    """Files of pruned runs that stay, and why."""

    @property
    def num_bytes(self) -> int:
        """What would be freed."""
        return sum(file.size for file in self.delete)

    def lines(self) -> Iterator[str]:
        """The dry run, a line each."""
        yield f"{len(self.runs)} runs may go: {len(self.delete)} files, {self.num_bytes / 1e6:.1f} MB"
        yield from (f"  delete {file.path} ({file.size} bytes)" for file in self.delete)
        yield from (f"  keep   {path}: {reason}" for path, reason in sorted(self.kept_files.items()))
        yield from (f"keep {run}: {reason}" for run, reason in sorted(self.kept_runs.items()))


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What a plan that was carried out did."""

    deleted: tuple[str, ...]
    skipped: Mapping[str, str]
    """Files that changed since the plan, and other reasons."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One folder with a manifest."""

    name: str
    files: Mapping[str, ObjectInfo]
    """By path below the run."""
    ended: float
    """Unix seconds."""
    recipe_hash: str
    """As its manifest says."""


def plan_prune(storage: Storage, names: Sequence[str]) -> PrunePlan:
    """Look at folders of `storage` that the caller has chosen and say what of them may go. Changes nothing.

    A name that is no run is left out. Raises `StorageError` for what cannot be listed or read.
    """
    delete: list[PlannedFile] = []
    runs: list[str] = []
    kept_runs: dict[str, str] = {}
    kept_files: dict[str, str] = {}
    for name in names:
        files = {info.path.removeprefix(f"{name}/"): info for info in storage.list(name)}
        if MANIFEST not in files:
            continue
        own = _may_go(storage, name, files)
        if isinstance(own, str):
            kept_runs[name] = own
            continue
        delete += own.delete
        kept_files |= own.kept
        runs.append(name)
    return PrunePlan(delete=tuple(delete), runs=tuple(runs), kept_runs=kept_runs, kept_files=kept_files)


def carry_out(storage: Storage, plan: PrunePlan) -> Pruned:
    """Delete what is still as the plan saw it, then the folders that this left empty."""
    deleted: list[str] = []
    skipped: dict[str, str] = {}
    for file in plan.delete:
        run = file.path.split("/", 1)[0]
        here = {info.path: info for info in _listed(storage, file.path)}
        found = here.get(file.path)
        if storage.exists(f"{run}/{LOCK}"):
            skipped[file.path] = "the run is locked: somebody works on it"
        elif found is None:
            skipped[file.path] = "it is gone"
        elif found.is_link or (found.size, found.tag) != (file.size, file.tag):
            skipped[file.path] = "it changed since the plan was made"
        else:
            storage.delete(file.path)
            deleted.append(file.path)
    for run in plan.runs:
        storage.prune(run)
    logger.info("pruned %d files of %d runs, %d skipped", len(deleted), len(plan.runs), len(skipped))
    return Pruned(deleted=tuple(deleted), skipped=skipped)


def _listed(storage: Storage, path: str) -> list[ObjectInfo]:
    folder, _, name = path.rpartition("/")
    return storage.list(folder, recursive=False, name_prefix=name)


def _may_go(storage: Storage, name: str, files: Mapping[str, ObjectInfo]) -> "_Own | str":
    """The files of a run that may go, or why it stays."""
    run = _finished(storage, name, files)
    if isinstance(run, str):
        return run
    touched = [path for path, info in files.items() if (_modified(info) or 0.0) > run.ended + _SLACK_S]
    if touched:
        return f"{touched[0]} is newer than the run's end: somebody worked on it since"
    return _own_files(storage, run)


def _finished(storage: Storage, name: str, files: Mapping[str, ObjectInfo]) -> "_Run | str":
    """A run that ended, or why it is not to be touched."""
    if KEEP in files:
        return f"it has a file {KEEP}"
    if LOCK in files:
        return "it is locked: a run may be at work"
    manifest = _plain(storage, name, files.get(MANIFEST))
    if not isinstance(manifest.get("schema_version"), int) or not isinstance(manifest.get("recipe"), dict):
        return f"its {MANIFEST} is not one of ours"
    summary = _plain(storage, name, files.get(SUMMARY))
    ended = _end_of(summary)
    if ended is None:
        return f"it is not finished, or its {SUMMARY} does not say so"
    recipe_hash = str(manifest.get("recipe_hash", ""))
    return _Run(name=name, files=files, ended=ended, recipe_hash=recipe_hash)


def _end_of(summary: Mapping[str, Any]) -> float | None:
    """When a finished run ended, in Unix seconds."""
    start = summary.get("this_run")
    if summary.get("state") != "done" or not isinstance(start, dict):
        return None
    started, seconds = start.get("started_unix"), start.get("seconds")
    if not isinstance(started, int | float) or not isinstance(seconds, int | float):
        return None
    ended = float(started) + float(seconds)
    return ended if math.isfinite(ended) and ended > 0 else None


def _modified(info: ObjectInfo) -> float | None:
    """Unix seconds, where the tag is a time: on a local disk. A store's tag says nothing of time."""
    return int(info.tag) / 1e9 if info.tag.isdecimal() else None


@dataclass(frozen=True, kw_only=True)
class _Own:
    """Files of a run that it demonstrably wrote, in the order of deletion, and why the others stay."""

    delete: Sequence[PlannedFile]
    kept: Mapping[str, str]


def _own_files(storage: Storage, run: _Run) -> "_Own | str":
    """What may go, or why the run stays as it is."""
    records = {
        path: record
        for path, info in run.files.items()
        if path.startswith("commits/") and not info.is_link and (record := _record(storage, run, path))
    }
    others = [path for path, record in records.items() if not record.is_of_tables]
    if others:
        return f"{others[0]} names files that are no tables of its shard: training sets stay"
    if not records:
        return "no commit record of its recipe vouches for its files"
    vouched: dict[str, str] = {}
    for record in sorted(records.values(), key=lambda each: each.retry):  # the last retry has the last word
        vouched |= record.contents
    own: list[str] = []
    kept: dict[str, str] = {}
    for path, info in run.files.items():
        if info.is_link:
            kept[path] = "a symbolic link"
        elif path in vouched:
            if _content(storage, f"{run.name}/{path}", info) == vouched[path]:
                own.append(path)
            else:
                kept[path] = "its bytes are not those that the run recorded"
        elif path not in records and path not in (MANIFEST, SUMMARY):
            kept[path] = "nothing proves that ovsops wrote it"
    planned = [*sorted(own), *sorted(records), SUMMARY, MANIFEST]
    return _Own(
        delete=[
            PlannedFile(path=f"{run.name}/{path}", size=run.files[path].size, tag=run.files[path].tag)
            for path in planned
        ],
        kept={f"{run.name}/{path}": reason for path, reason in kept.items()},
    )


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What a commit record vouches for."""

    retry: int
    contents: Mapping[str, str]
    """Size and SHA-256 by path of a table."""
    is_of_tables: bool
    """All that it names are tables of its shard."""


def _record(storage: Storage, run: _Run, path: str) -> _Record | None:
    """A commit record of the run's recipe that names its own path; None for anything else."""
    try:
        plain = json.loads(storage.read(f"{run.name}/{path}"))
        shard, retry, tables = plain["shard"], plain["retry"], plain["tables"]
        contents = {
            table["published"]: f"{table['num_bytes']:d} {table['sha256']}"
            for kind, table in tables.items()
            if kind.isidentifier() and table["published"] == f"{kind}/{shard}.parquet"
        }
        name = f"commits/{shard}{f'.retry-{retry:d}' if retry else ''}.json"
        recipe_hash = plain["recipe_hash"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    is_ours = isinstance(shard, str) and "/" not in shard and isinstance(retry, int) and name == path
    if not is_ours or recipe_hash != run.recipe_hash:
        return None
    return _Record(retry=retry, contents=contents, is_of_tables=len(contents) == len(tables) > 0)


def _content(storage: Storage, path: str, info: ObjectInfo) -> str:
    """Size and SHA-256, as a commit record has them."""
    digest = hashlib.sha256()
    try:
        with storage.open(path) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return ""
    return f"{info.size} {digest.hexdigest()}"


def _plain(storage: Storage, run: str, info: ObjectInfo | None) -> Mapping[str, Any]:
    """The JSON object of a plain file; empty for anything else."""
    if info is None or info.is_link:
        return {}
    try:
        plain = json.loads(storage.read(info.path))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        logger.warning("%s of run %s is no JSON: %s", info.path, run, error)
        return {}
    return plain if isinstance(plain, dict) else {}
