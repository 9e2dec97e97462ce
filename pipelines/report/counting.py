"""The tables of a run read once, in bounded memory: what charts need, and candidates for the gallery.

A candidate is an image, found through one of its regions. Strata are class x decision x score band, each code of
`reason_codes`, and images without regions; of each the few with the smallest seeded hash are kept. Axes: N rows.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int64, UInt64

from ovsops.errors import ConfigError, StorageError
from pipelines.ledger import Commit
from pipelines.storage import Storage

logger = logging.getLogger(__name__)

NUM_BINS = 20
"""Bins of score histograms over [0, 1]."""
NUM_BANDS = 4
"""Score bands of the strata."""
DECISIONS = ("accept", "review", "reject")
UNDECIDED = len(DECISIONS)
"""Place of regions without a decision, or with one that is not known here."""
EXAMPLES_PER_CODE = 3
_ROWS_AT_ONCE = 65_536
_LIGHT = (
    "instance_uid",
    "image_uid",
    "category_id",
    "score",
    "score_calibrated",
    "decision",
    "reason_codes",
    "rivals",
)

Stratum = tuple[str, int | str, int, int]
"""("class", id, decision, band), ("reason", code, 0, 0), ("empty", 0, 0, 0), or `_ANY`: all labelled images."""
_ANY: Stratum = ("any", 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class GalleryConfig:
    """What the gallery shows of a run."""

    images: int = 160
    """Pictures at most."""
    shards: int = 64
    """Source shards that are opened for pictures at most."""
    per_stratum: int = 4
    """Candidates that are kept of each stratum."""
    regions_per_image: int = 80
    """Regions drawn on one picture; the best scores beyond the sampled ones."""
    seed: int = 0
    """Another seed shows other images."""

    def __post_init__(self) -> None:
        for name in ("images", "shards", "per_stratum", "regions_per_image"):
            if getattr(self, name) < 1:
                raise ConfigError(f"report {name} is {getattr(self, name)}: give 1 or more")


@dataclass(frozen=True, order=True)
class Candidate:
    """An image that may be shown."""

    rank: int
    """Smaller is earlier; depends on uid and seed alone."""
    shard: str
    image_uid: str
    region_uid: str = ""


@dataclass
class RunCounts:
    """Sums over all committed tables; memory grows with classes, codes and strata, not with rows."""

    num_regions: int = 0
    num_empty: int = 0
    """Labelled images without a region."""
    scores: dict[int, Int64[np.ndarray, "D M"]] = field(default_factory=dict)
    """By class: regions by decision and bin of `score`."""
    score_sums: dict[int, float] = field(default_factory=dict)
    """By class: sum of `score`; one outside [0, 1] counts as the nearer end, one that is no number as 0."""
    chances: Int64[np.ndarray, "D M"] = field(
        default_factory=lambda: np.zeros((UNDECIDED + 1, NUM_BINS), np.int64)
    )
    """Regions by decision and bin of `score_calibrated`."""
    reasons: Counter[str] = field(default_factory=Counter)
    rivals: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often a region of the first class nearly had the name of the second."""
    examples: dict[str, list[tuple[str, str, str, str]]] = field(default_factory=dict)
    """Shard, key, stage and message of a few failed or skipped images, by code."""
    strata: dict[Stratum, list[Candidate]] = field(default_factory=dict)
    lost_tables: list[str] = field(default_factory=list)
    """Committed tables that could not be read."""

    @property
    def num_per_class(self) -> dict[int, int]:
        """Regions by class."""
        return {category: int(table.sum()) for category, table in self.scores.items()}

    def mean_score(self, category: int) -> float:
        """Mean `score` of a class's regions, in [0, 1]. Raises `KeyError` for a class without regions."""
        return self.score_sums[category] / int(self.scores[category].sum())

    def by_decision(self) -> Int64[np.ndarray, "D M"]:
        """Regions of all classes by decision and bin of `score`."""
        return sum(self.scores.values(), np.zeros((UNDECIDED + 1, NUM_BINS), np.int64))


def count_run(storage: Storage, commits: Sequence[Commit], config: GalleryConfig) -> RunCounts:
    """Read the light columns of every committed table once. A table that is gone is named, not raised."""
    counts = RunCounts()
    for commit in commits:
        try:
            _count_shard(counts, storage, commit, config)
        except (StorageError, OSError, pa.ArrowInvalid) as error:
            logger.warning("shard %s: its tables cannot be read: %s", commit.name, error)
            counts.lost_tables.append(commit.name)
    return counts


def batches(storage: Storage, path: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """A table's columns, some ten thousand rows at a time; those that it lacks are left out."""
    file = pq.ParquetFile(pa.BufferReader(storage.read(path)))
    there = [name for name in columns if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=there):
        yield pa.Table.from_batches([batch])


def _count_shard(counts: RunCounts, storage: Storage, commit: Commit, config: GalleryConfig) -> None:
    with_regions: set[str] = set()
    for table in batches(storage, commit.tables["instances"]["published"], _LIGHT):
        if table.num_rows:
            _count_regions(counts, table, commit.shard, config)
            with_regions.update(pc.unique(table.column("image_uid")).to_pylist())
    columns = ("image_uid", "key", "status", "error_code", "error_stage", "error_message")
    for table in batches(storage, commit.tables["images"]["published"], columns):
        _count_images(counts, table, commit, with_regions, config)


def _count_images(
    counts: RunCounts, table: pa.Table, commit: Commit, with_regions: set[str], config: GalleryConfig
) -> None:
    failed = table.filter(pc.is_valid(table.column("error_code")))
    for code in pc.unique(failed.column("error_code")).to_pylist():
        known = counts.examples.setdefault(code, [])
        if len(known) < EXAMPLES_PER_CODE:
            rows = failed.filter(pc.equal(failed.column("error_code"), code)).slice(0, EXAMPLES_PER_CODE)
            known += [
                (commit.name, row["key"], row["error_stage"] or "", row["error_message"] or "")
                for row in rows.to_pylist()
            ][: EXAMPLES_PER_CODE - len(known)]
    labelled = table.filter(pc.equal(table.column("status"), "labelled")).column("image_uid")
    empty = [uid for uid in labelled.to_pylist() if uid not in with_regions]
    counts.num_empty += len(empty)
    if empty:
        ranks = ranks_of(pa.chunked_array([pa.array(empty)]), config.seed)
        for place in np.argsort(ranks, kind="stable")[: config.per_stratum]:
            found = Candidate(int(ranks[place]), commit.shard, empty[place])
            _offer(counts, ("empty", 0, 0, 0), found, config.per_stratum)
    uids = labelled.to_pylist()
    if uids:
        ranks = ranks_of(labelled, config.seed)
        for place in np.argsort(ranks, kind="stable")[: config.images]:
            _offer(counts, _ANY, Candidate(int(ranks[place]), commit.shard, uids[place]), config.images)


def _count_regions(counts: RunCounts, table: pa.Table, shard: str, config: GalleryConfig) -> None:
    categories = table.column("category_id").to_numpy()
    decisions = decisions_of(table.column("decision"))
    scores = np.clip(np.nan_to_num(table.column("score").to_numpy()), 0.0, 1.0)
    bins = np.minimum((scores * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts.num_regions += len(categories)
    ids, places = np.unique(categories, return_inverse=True)
    tables = np.zeros((len(ids), UNDECIDED + 1, NUM_BINS), np.int64)
    np.add.at(tables, (places, decisions, bins), 1)
    sums = np.bincount(places, weights=scores, minlength=len(ids))
    for category, found, total in zip(ids.tolist(), tables, sums.tolist(), strict=True):
        counts.scores[category] = counts.scores.get(category, 0) + found
        counts.score_sums[category] = counts.score_sums.get(category, 0.0) + total
    chances = table.column("score_calibrated")
    is_known = pc.is_valid(chances).to_numpy()
    if is_known.any():
        values = np.clip(chances.to_numpy(zero_copy_only=False)[is_known], 0.0, 1.0)
        chance_bins = np.minimum((values * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        np.add.at(counts.chances, (decisions[is_known], chance_bins), 1)
    _count_rivals(counts, table, categories)
    bands = np.minimum((scores * NUM_BANDS).astype(np.int64), NUM_BANDS - 1)
    ranks = ranks_of(table.column("instance_uid"), config.seed)
    strata = (places * (UNDECIDED + 1) + decisions) * NUM_BANDS + bands
    for place in smallest_of_each(strata, ranks, config.per_stratum):
        stratum = ("class", int(categories[place]), int(decisions[place]), int(bands[place]))
        _offer(counts, stratum, _candidate(table, place, ranks, shard), config.per_stratum)
    _count_reasons(counts, table, ranks, shard, config)


def _count_rivals(counts: RunCounts, table: pa.Table, categories: Int64[np.ndarray, " N"]) -> None:
    if "rivals" not in table.column_names:
        return
    rivals = table.column("rivals").combine_chunks()
    names = pc.struct_field(pc.list_flatten(rivals), "category_id").to_numpy(zero_copy_only=False)
    if len(names):
        own = categories[pc.list_parent_indices(rivals).to_numpy()]
        pairs, numbers = np.unique(np.stack([own, names]), axis=1, return_counts=True)
        counts.rivals.update(
            {(int(a), int(b)): int(number) for a, b, number in zip(pairs[0], pairs[1], numbers, strict=True)}
        )


def _count_reasons(
    counts: RunCounts, table: pa.Table, ranks: UInt64[np.ndarray, " N"], shard: str, config: GalleryConfig
) -> None:
    reasons = table.column("reason_codes").combine_chunks()
    codes = pc.list_flatten(reasons).dictionary_encode()
    if not len(codes):
        return
    own = pc.list_parent_indices(reasons).to_numpy()
    names = codes.dictionary.to_pylist()
    places = codes.indices.to_numpy()
    counts.reasons.update(dict(zip(names, np.bincount(places, minlength=len(names)).tolist(), strict=True)))
    for at in smallest_of_each(places, ranks[own], config.per_stratum):
        found = _candidate(table, int(own[at]), ranks, shard)
        _offer(counts, ("reason", names[places[at]], 0, 0), found, config.per_stratum)


def _candidate(table: pa.Table, place: int, ranks: UInt64[np.ndarray, " N"], shard: str) -> Candidate:
    uids = (table.column(name)[place].as_py() for name in ("image_uid", "instance_uid"))
    return Candidate(int(ranks[place]), shard, *uids)


def _offer(counts: RunCounts, stratum: Stratum, found: Candidate, limit: int) -> None:
    """Keep the `limit` smallest of a stratum."""
    known = counts.strata.setdefault(stratum, [])
    known.append(found)
    if len(known) > 4 * limit:
        known[:] = heapq.nsmallest(limit, known)


def decisions_of(column: pa.ChunkedArray) -> Int64[np.ndarray, " N"]:
    """Places in `DECISIONS`; `UNDECIDED` for null and for words that are not known."""
    found = pc.index_in(column, value_set=pa.array(DECISIONS))
    return pc.fill_null(found, UNDECIDED).to_numpy().astype(np.int64)


def smallest_of_each(
    groups: Int64[np.ndarray, " N"], ranks: UInt64[np.ndarray, " N"], limit: int
) -> list[int]:
    """Places of the `limit` smallest ranks of each group."""
    order = np.lexsort((ranks, groups))
    sorted_groups = groups[order]
    is_first = np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]])
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    return order[np.arange(len(order)) - starts < limit].tolist()


def ranks_of(uids: pa.ChunkedArray, seed: int) -> UInt64[np.ndarray, " N"]:
    """A number for each uid (hex), as good as random and the same in every run of a seed.

    The first 16 digits through the finaliser of SplitMix64 (Steele, Lea, Flood 2014), so that seeds give other orders.
    """
    width = 16
    text = pc.utf8_slice_codeunits(pc.utf8_rpad(uids, width, "0"), 0, width)
    digits = np.frombuffer("".join(text.to_pylist()).encode("ascii", "replace"), np.uint8)
    nibbles = ((digits & 0xF) + 9 * (digits >> 6)).reshape(-1, width).astype(np.uint64) & np.uint64(0xF)
    shifts = np.arange(4 * (width - 1), -1, -4, dtype=np.uint64)
    mixed = (nibbles << shifts).sum(axis=1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = mixed + np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def choose_images(counts: RunCounts, config: GalleryConfig) -> list[Candidate]:
    """Images for the gallery, all strata in turn: each code, images without regions, then classes round robin; any
    others where there is room.

    Once `config.shards` shards are opened, only images of these are taken.
    """
    queues = [sorted(counts.strata[stratum])[: config.per_stratum] for stratum in _in_turn(counts, config)]
    in_turn = [queue[turn] for turn in range(config.per_stratum) for queue in queues if turn < len(queue)]
    chosen: dict[str, Candidate] = {}
    shards: set[str] = set()
    for found in (*in_turn, *sorted(counts.strata.get(_ANY, []))):
        if len(chosen) >= config.images:
            break
        if found.image_uid not in chosen and (found.shard in shards or len(shards) < config.shards):
            shards.add(found.shard)
            chosen[found.image_uid] = found
    return list(chosen.values())


def _in_turn(counts: RunCounts, config: GalleryConfig) -> list[Stratum]:
    """Codes first, then one stratum of each class, then the second of each: order within a class by seeded chance."""
    chance = np.random.default_rng(config.seed)
    by_class: dict[int | str, list[Stratum]] = {}
    others = []
    for stratum in sorted(counts.strata, key=str):
        if stratum == _ANY:
            continue
        if stratum[0] == "class":
            by_class.setdefault(stratum[1], []).append(stratum)
        else:
            others.append(stratum)
    classes = [by_class[name] for name in sorted(by_class, key=str)]
    chance.shuffle(classes)
    for strata in classes:
        chance.shuffle(strata)
    depth = max((len(strata) for strata in classes), default=0)
    return others + [strata[at] for at in range(depth) for strata in classes if at < len(strata)]
