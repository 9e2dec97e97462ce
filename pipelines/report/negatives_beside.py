"""Hard negatives of a run in what lies beside it: tables of the negatives job, and training sets.

A region may be in several of them, a set in several formats: it counts once. What a manifest says is of other labels is
passed by, and so is what lies in a neighbouring folder where no manifest says that it is of these.
"""

import hashlib
import heapq
import json
import logging
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

NUM_TO_READ = 50
"""Negatives that a page shows for a person to read."""
_MAX_FILES = 256
"""Parquet files that are searched at most."""
_LABELS = ("images", "instances")
"""Folders of tables that hold labels."""
_TABLE = ("instance_uid", "positive", "negatives", "types")
"""Columns of the negatives job's tables."""


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """Hard negatives of one region."""

    positive: str
    texts: tuple[str, ...]
    types: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FoundNegatives:
    """All that was found."""

    by_region: Mapping[str, Negatives] = field(default_factory=dict)
    """By `instance_uid`, of the regions that were asked for."""
    num_regions: int = 0
    """Regions with negatives, each once."""
    sources: tuple[str, ...] = ()
    """Folders that hold some."""
    to_read: tuple[tuple[str, str, str], ...] = ()
    """Positive, one of its negatives and what was changed, of `NUM_TO_READ` regions: those whose names have the
    smallest hashes, so that they are drawn evenly, and are the same for the same negatives."""


def find_negatives(
    folders: Sequence[Path],
    *,
    recipe_hash: str,
    regions: frozenset[str],
    shards: Collection[str],
    strangers: Collection[Path] = (),
) -> FoundNegatives:
    """Negatives in Parquet files of the folders. Files that are called after one of `shards` are read first.

    `strangers` are folders of which nobody said that they are about the run: there a manifest must.
    """
    search = _Search(wanted=regions)
    sources, left = [], _MAX_FILES
    is_of_run = lru_cache(maxsize=None)(lambda folder: _is_of_run(folder, recipe_hash))
    for folder in folders:
        paths = [
            path
            for path in folder.rglob("*.parquet")
            if path.parent.name not in _LABELS
            and not path.is_symlink()
            and _belongs(path, folder, is_of_run, otherwise=folder not in strangers)
        ]
        paths.sort(key=lambda path: (path.stem not in shards, path))
        found = False
        for path in paths[:left]:
            try:
                found = search.read(path) or found
            except (OSError, pa.ArrowException) as error:
                logger.warning("%s cannot be read for negatives: %s", path, error)
        if len(paths) > left:
            logger.warning("%s: %d of its files were not read for negatives", folder, len(paths) - left)
        left = max(0, left - len(paths))
        if found:
            sources.append(str(folder))
    return search.found(tuple(sources))


def _belongs(path: Path, folder: Path, is_of_run: Callable[[Path], bool | None], *, otherwise: bool) -> bool:
    """What the nearest manifest above a file says, as far up as `folder`."""
    for place in path.parents:
        said = is_of_run(place)
        if said is not None:
            return said
        if place == folder:
            break
    return otherwise


def _is_of_run(folder: Path, recipe_hash: str) -> bool | None:
    """Whether a folder's manifest names these labels; None where it has none, or says nothing of labels."""
    try:
        manifest = json.loads((folder / "run.json").read_bytes())
        said = manifest["recipe"]["made_of"]["labels_recipe_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return bool(said == recipe_hash)


class _Search:
    """What files hold, gathered in some bytes a region."""

    def __init__(self, *, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self.by_region: dict[str, Negatives] = {}
        self.digests = array("Q")
        self.smallest: list[tuple[int, str, str, str]] = []
        """Heap with the largest hash on top: hash negated, positive, negative, type."""
        self.drawn: set[int] = set()

    def read(self, path: Path) -> bool:
        """Add what a file holds; whether it holds any."""
        before = len(self.digests)
        for uid, negatives in _regions_of(pq.ParquetFile(path)):
            digest = int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=8).digest(), "big")
            self.digests.append(digest)
            if uid in self.wanted or self._is_small(digest):
                self._keep(uid, digest, negatives())
        return len(self.digests) > before

    def found(self, sources: tuple[str, ...]) -> FoundNegatives:
        """All of it."""
        return FoundNegatives(
            by_region=self.by_region,
            num_regions=len(np.unique(np.frombuffer(self.digests, np.uint64))) if self.digests else 0,
            sources=sources,
            to_read=tuple(row[1:] for row in sorted(self.smallest, key=lambda row: -row[0])),
        )

    def _is_small(self, digest: int) -> bool:
        is_full = len(self.smallest) == NUM_TO_READ
        return digest not in self.drawn and not (is_full and digest > -self.smallest[0][0])

    def _keep(self, uid: str, digest: int, negatives: Negatives) -> None:
        if uid in self.wanted:
            self.by_region[uid] = negatives
        if not self._is_small(digest) or not negatives.texts or not negatives.positive:
            return
        place = digest % len(negatives.texts)
        kind = negatives.types[place] if place < len(negatives.types) else ""
        row = (-digest, negatives.positive, negatives.texts[place], kind)
        self.drawn.add(digest)
        if len(self.smallest) < NUM_TO_READ:
            heapq.heappush(self.smallest, row)
        else:
            self.drawn.discard(-heapq.heapreplace(self.smallest, row)[0])


def _regions_of(file: pq.ParquetFile) -> Iterator[tuple[str, Callable[[], Negatives]]]:
    """Name of each region that has negatives, and how to read them: most are only counted."""
    names = set(file.schema_arrow.names)
    if names >= set(_TABLE):
        for batch in file.iter_batches(columns=list(_TABLE)):
            rows = batch.filter(pc.is_valid(batch.column("negatives")))
            for place, uid in enumerate(rows.column("instance_uid").to_pylist()):
                yield uid, partial(_of_table, rows, place)
    elif names >= {"regions", "short_caption"}:
        for batch in file.iter_batches(columns=["regions"], batch_size=1024):
            for region in (each for row in batch.column("regions").to_pylist() for each in row or ()):
                if region["flag_short_neg"]:
                    yield region["region_uid"], partial(_of_set, region)


def _of_table(rows: pa.RecordBatch, place: int) -> Negatives:
    row = rows.slice(place, 1).to_pylist()[0]
    return Negatives(
        positive=row["positive"] or "", texts=tuple(row["negatives"]), types=tuple(row["types"] or ())
    )


def _of_set(region: Mapping[str, Any]) -> Negatives:
    return Negatives(
        positive=region["short_expr"],
        texts=tuple(region["short_expr_negs"]),
        types=tuple(region["neg_types"]),
    )
