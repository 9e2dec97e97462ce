"""Draw a stratified sample of a run's labels, without holding the run: count, allocate, draw.

Strata are class x decision x score band. Where the rows do not give `least` to each, strata are joined: first the bands
of a class and decision, then the decisions of a class, then the classes with the fewest labels into `(rare classes)`.

A label's place in line is a hash of the seed and its uid, and a stratum gives the first ones: a uniform sample without
replacement that depends neither on the order of shards nor on the engine. In memory are counts and the rows drawn.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ovsops.errors import ConfigError, OutputError
from ovsops.metrics.audit import allocate
from pipelines.audit.config import SampleConfig
from pipelines.export import committed_rows
from pipelines.ledger import Commit
from pipelines.storage import Storage

ALL, RARE = "(all)", "(rare classes)"
_COLUMNS = [
    "instance_uid",
    "image_uid",
    "category_id",
    "decision",
    "score",
    "score_calibrated",
    "detector",
    "bbox",
    "segmentation",
    "reason_codes",
]


@dataclass(frozen=True, kw_only=True, order=True)
class Stratum:
    """Labels that are alike."""

    class_name: str
    decision: str
    band: str
    """`0.5 to 0.8`, or `(all)`."""

    def __str__(self) -> str:
        parts = [self.class_name, *(part for part in (self.decision, self.band) if part != ALL)]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class SampledRow:
    """One label to judge, as the tables have it, with its image."""

    stratum: Stratum
    shard: str
    """Name of the shard."""
    index: int
    """Place of the image in the shard."""
    key: str
    sha256: str | None
    class_name: str
    label: Mapping[str, Any]
    """Row of `instances`."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was drawn, and from what."""

    rows: tuple[SampledRow, ...]
    """By stratum, in each in the order of the draw."""
    sizes: Mapping[Stratum, int]
    """Labels of the run in each stratum."""

    @property
    def drawn(self) -> Counter[Stratum]:
        """Rows of each stratum."""
        return Counter(row.stratum for row in self.rows)


def draw_sample(
    storage: Storage, commits: Sequence[Commit], names: Mapping[int, str], config: SampleConfig
) -> Sample:
    """Two passes over the `instances` tables. Raises `ConfigError` where there is nothing to draw from."""
    fine: Counter[Stratum] = Counter()
    for commit in commits:
        columns = ["instance_uid", "category_id", "decision", "score", "score_calibrated"]
        fine.update(
            stratum_of(row, names, config.bands, commit)
            for row in committed_rows(storage, commit, "instances", columns)
        )
    if not fine:
        raise ConfigError(f"{storage.url}: the run has no labels, so there is nothing to judge")
    joined = join_strata(fine, config)
    sizes: Counter[Stratum] = Counter()
    for stratum, count in fine.items():
        sizes[joined[stratum]] += count
    strata = sorted(sizes)
    wanted = allocate([sizes[each] for each in strata], config.rows, least=config.least, power=config.power)
    rows = _draw(storage, commits, names, config, joined, dict(zip(strata, wanted.tolist(), strict=True)))
    return Sample(rows=tuple(rows), sizes={each: sizes[each] for each in strata})


def stratum_of(
    row: Mapping[str, Any], names: Mapping[int, str], bands: Sequence[float], commit: Commit
) -> Stratum:
    """The finest stratum of a label."""
    if row["category_id"] not in names:
        raise OutputError(
            f"shard {commit.name}: category {row['category_id']} of {row['instance_uid']} is not in the vocabulary of"
            " run.json; the tables were changed: label the shard again"
        )
    score = chance_of(row)
    edges = [0.0, *bands, 1.0]
    place = sum(score >= band for band in bands)
    return Stratum(
        class_name=names[row["category_id"]],
        decision=row["decision"] or "none",
        band=f"{edges[place]:g} to {edges[place + 1]:g}",
    )


def chance_of(row: Mapping[str, Any]) -> float:
    """The calibrated score where there is one, else the score."""
    return float(row["score"] if row["score_calibrated"] is None else row["score_calibrated"])


def join_strata(fine: Mapping[Stratum, int], config: SampleConfig) -> dict[Stratum, Stratum]:
    """The stratum that each fine one goes to, so that the rows give `least` to each."""
    rows = min(config.rows, sum(fine.values()))
    for keeps_band, keeps_decision in ((True, True), (False, True), (False, False)):
        joined = {
            each: Stratum(
                class_name=each.class_name,
                decision=each.decision if keeps_decision else ALL,
                band=each.band if keeps_band else ALL,
            )
            for each in fine
        }
        if _fits(fine, joined, config.least, rows):
            return joined
    per_class: Counter[str] = Counter()
    for each, count in fine.items():
        per_class[each.class_name] += count
    largest_first = sorted(per_class, key=lambda name: (-per_class[name], name))
    for kept in range(len(largest_first) - 1, -1, -1):
        own = set(largest_first[:kept])
        joined = {
            each: Stratum(
                class_name=each.class_name if each.class_name in own else RARE, decision=ALL, band=ALL
            )
            for each in fine
        }
        if _fits(fine, joined, config.least, rows):
            return joined
    raise ConfigError(
        f"sample.rows is {config.rows}, below sample.least {config.least}: give at least as many"
    )


def _fits(fine: Mapping[Stratum, int], joined: Mapping[Stratum, Stratum], least: int, rows: int) -> bool:
    sizes: Counter[Stratum] = Counter()
    for each, count in fine.items():
        sizes[joined[each]] += count
    return sum(min(size, least) for size in sizes.values()) <= rows


def _draw(
    storage: Storage,
    commits: Sequence[Commit],
    names: Mapping[int, str],
    config: SampleConfig,
    joined: Mapping[Stratum, Stratum],
    wanted: Mapping[Stratum, int],
) -> Iterator[SampledRow]:
    heaps: dict[Stratum, list[tuple[int, str, str, dict[str, Any]]]] = {each: [] for each in wanted}
    for commit in commits:
        for row in committed_rows(storage, commit, "instances", _COLUMNS):
            stratum = joined[stratum_of(row, names, config.bands, commit)]
            entry = (-place_in_line(config.seed, row["instance_uid"]), row["instance_uid"], commit.shard, row)
            heap = heaps[stratum]
            if len(heap) < wanted[stratum]:
                heapq.heappush(heap, entry)
            elif heap and entry[0] > heap[0][0]:
                heapq.heapreplace(heap, entry)
    chosen = [(stratum, entry) for stratum in sorted(heaps) for entry in sorted(heaps[stratum], reverse=True)]
    images = _images(storage, commits, {(entry[2], entry[3]["image_uid"]) for _, entry in chosen})
    for stratum, (_, _, shard, label) in chosen:
        image = images[shard, label["image_uid"]]
        yield SampledRow(
            stratum=stratum,
            shard=image["shard"],
            index=image["index"],
            key=image["key"],
            sha256=image["sha256"],
            class_name=names[label["category_id"]],
            label=label,
        )


def place_in_line(seed: int, uid: str) -> int:
    """64 bits that the seed and the uid decide."""
    data = f"ovsops audit {seed}\0{uid}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _images(
    storage: Storage, commits: Sequence[Commit], wanted: set[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, Any]]:
    shards = {shard for shard, _ in wanted}
    found = {
        (commit.shard, row["image_uid"]): row
        for commit in commits
        if commit.shard in shards
        for row in committed_rows(storage, commit, "images", ["image_uid", "shard", "index", "key", "sha256"])
        if (commit.shard, row["image_uid"]) in wanted
    }
    for shard, uid in sorted(wanted - found.keys()):
        raise OutputError(
            f"images/{shard}.parquet has no image {uid}, which a label names; the tables were changed: label the shard"
            " again"
        )
    return found


def strata_to_plain(sample: Sample) -> list[dict[str, Any]]:
    """Strata with their sizes and rows, for a file."""
    drawn = sample.drawn
    return [asdict(each) | {"size": size, "rows": drawn[each]} for each, size in sample.sizes.items()]
