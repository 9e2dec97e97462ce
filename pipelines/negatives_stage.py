"""Labelled regions in, their negatives out: candidates, what validators say of them, ten or a reason."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ovsops.negatives.candidates import (
    TOO_FEW,
    CandidateNegatives,
    RegionContext,
    Source,
    Validated,
    choose_ten,
    same_place,
    validate_all,
)
from ovsops.negatives.config import NUM_NEGATIVES
from ovsops.negatives.sampler import Negatives, NegativeSampler
from pipelines.labelled_shards import SourceShard, read_committed
from pipelines.negatives_checks import Checks, ValidatorFactory
from pipelines.parts import seal_table
from pipelines.readers import ReaderConfig
from pipelines.schemas import NEGATIVES
from pipelines.storage import StorageOptions, open_storage
from pipelines.units import SealedUnit, UnitStage

TextColumn = Literal["caption_short", "caption_long", "prompt"]

REGIONS_AT_ONCE = 1024
"""Regions of one call of the validators, at least: images are not cut."""

_COLUMNS = (
    "instance_uid",
    "image_uid",
    "category_id",
    "prompt",
    "bbox",
    "caption_short",
    "caption_long",
    "rivals",
)


class NegativesStage(UnitStage):
    """One table of `NEGATIVES` a shard: a row for every region, in the order of the label run's table."""

    name = "negatives"

    def __init__(
        self,
        output: str,
        options: StorageOptions,
        run: str,
        *,
        labels: str,
        categories: Mapping[int, str],
        sampler: NegativeSampler,
        texts: tuple[TextColumn, ...],
        spare: int,
        validators: ValidatorFactory | None,
        reader: ReaderConfig,
    ) -> None:
        super().__init__(output, options, run)
        self.labels, self.categories, self.sampler, self.texts = labels, categories, sampler, texts
        self.factory, self.reader = validators, reader
        self.count = NUM_NEGATIVES + (spare if validators is not None else 0)

    def setup(self) -> None:
        """Open both outputs, build the validators."""
        super().setup()
        self.label_storage = open_storage(self.labels, self.options)
        self.checks = Checks(validators=()) if self.factory is None else self.factory.build()

    def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
        """Negatives of one shard."""
        tables = task["tables"]
        images = read_committed(self.label_storage, tables["images"], ["image_uid", "key", "index"])
        keys = dict(zip(images["image_uid"].to_pylist(), images["key"].to_pylist(), strict=True))
        regions = read_committed(self.label_storage, tables["instances"], _COLUMNS)
        features = self._features(task, images, regions)
        parts: list[pa.Table] = [NEGATIVES.empty_table()]
        counts = _Counts()
        for some in _whole_images(regions):
            rows = [row | {"key": keys[row["image_uid"]]} for row in self._rows(some, features)]
            counts.add(rows)
            parts.append(pa.Table.from_pylist(rows, schema=NEGATIVES))
        table = pa.concat_tables(parts)
        return SealedUnit(
            tables={"negatives": seal_table(self.storage, "negatives", shard, table, self.run)},
            read=table.num_rows,
            kept=counts.kept,
            left_out=counts.reasons,
            counts={"languages": counts.languages, "types": counts.types, "dropped": counts.dropped},
        )

    def _features(
        self, task: Mapping[str, Any], images: pa.Table, regions: pa.Table
    ) -> Mapping[str, np.ndarray]:
        """Of every region, where a validator compares pixels: the images are read for it."""
        looker = self.checks.looker
        if looker is None:
            return {}
        by_image: dict[str, list[dict[str, Any]]] = {}
        for region in regions.select(["instance_uid", "image_uid", "bbox"]).to_pylist():
            by_image.setdefault(region["image_uid"], []).append(region)
        places = dict(zip(images["index"].to_pylist(), images["image_uid"].to_pylist(), strict=True))
        return looker.features(SourceShard.of(task).rows(self.reader, self.options), places, by_image)

    def _rows(
        self, regions: Sequence[Mapping[str, Any]], features: Mapping[str, np.ndarray]
    ) -> list[dict[str, Any]]:
        """Rows of `NEGATIVES`, without `key`, of the regions of some whole images."""
        drawn = [
            self.sampler.candidates_for(
                text_of(region, self.texts), key=region["instance_uid"], count=self.count
            )
            for region in regions
        ]
        made = [i for i, answer in enumerate(drawn) if isinstance(answer, Negatives)]
        validated = dict(zip(made, self._validated(regions, drawn, made, features), strict=True))
        rows = []
        for i, (region, answer) in enumerate(zip(regions, drawn, strict=True)):
            row: dict[str, Any] = {
                "instance_uid": region["instance_uid"],
                "image_uid": region["image_uid"],
                "category_id": region["category_id"],
                "level": self.sampler.config.level,
                "dropped": [],
            }
            if isinstance(answer, Negatives):
                row |= _chosen(answer, validated[i])
            else:
                row |= {"positive": text_of(region, self.texts), "reason": answer.reason}
            rows.append(row)
        return rows

    def _validated(
        self,
        regions: Sequence[Mapping[str, Any]],
        drawn: Sequence[Any],
        made: Sequence[int],
        features: Mapping[str, np.ndarray],
    ) -> list[Validated]:
        rule: Source = "rule"
        candidates = [
            CandidateNegatives(
                key=regions[i]["instance_uid"],
                positive=drawn[i].positive,
                language=drawn[i].language,
                texts=drawn[i].negatives,
                types=drawn[i].types,
                sources=(rule,) * len(drawn[i].negatives),
            )
            for i in made
        ]
        if not self.checks.validators:
            return validate_all([], candidates, [RegionContext()] * len(candidates))
        contexts = region_contexts(regions, self.categories)
        seen = [replace(contexts[i], feature=features.get(regions[i]["instance_uid"])) for i in made]
        return validate_all(self.checks.validators, candidates, seen)


def text_of(region: Mapping[str, Any], texts: Sequence[TextColumn]) -> str | None:
    """The first of the columns that holds more than spaces."""
    return next((region[name] for name in texts if region[name] and region[name].strip()), None)


def region_contexts(
    regions: Sequence[Mapping[str, Any]], categories: Mapping[int, str]
) -> list[RegionContext]:
    """What the label run says of each region beside its positive. Regions of an image follow each other."""
    contexts = []
    for _, group in groupby(regions, key=itemgetter("image_uid")):
        own = list(group)
        xywh = np.asarray([region["bbox"] for region in own], np.float64).reshape(-1, 4)
        near = same_place(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1))
        names = [categories.get(region["category_id"]) for region in own]
        for i, region in enumerate(own):
            labels = [names[i], *(names[j] for j in near[i])]
            rivals = [categories.get(rival["category_id"]) for rival in region["rivals"]]
            contexts.append(
                RegionContext(
                    captions=_said([region]),
                    neighbours=_said([own[j] for j in near[i]]),
                    labels=tuple(dict.fromkeys(name for name in labels if name)),
                    contested=tuple(dict.fromkeys(name for name in rivals if name)),
                )
            )
    return contexts


def _said(regions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    texts = (region[name] for region in regions for name in ("caption_short", "caption_long", "prompt"))
    return tuple(dict.fromkeys(text for text in texts if text))


def _chosen(answer: Negatives, found: Validated) -> dict[str, Any]:
    """Ten, or the reason why they are not ten; what was dropped on the way is said in any case."""
    dropped = Counter(reason for reason in found.reasons if reason is not None)
    row: dict[str, Any] = {
        "positive": answer.positive,
        "language": answer.language,
        "dropped": [f"{reason}:{count}" for reason, count in sorted(dropped.items())],
    }
    ten = choose_ten(found.kept)
    if ten is None:
        return row | {"reason": TOO_FEW}
    return row | {"negatives": list(ten.texts), "types": list(ten.types)}


def _whole_images(regions: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Some hundred regions at a time; those of an image stay together."""
    waiting: list[dict[str, Any]] = []
    for batch in regions.to_batches(max_chunksize=REGIONS_AT_ONCE):
        for row in batch.to_pylist():
            if len(waiting) >= REGIONS_AT_ONCE and row["image_uid"] != waiting[-1]["image_uid"]:
                yield waiting
                waiting = []
            waiting.append(row)
    if waiting:
        yield waiting


class _Counts:
    """What became of regions."""

    def __init__(self) -> None:
        self.kept = 0
        self.reasons: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            if row.get("negatives") is None:
                self.reasons[row["reason"]] += 1
            else:
                self.kept += 1
                self.languages[row["language"]] += 1
                self.types.update(row["types"])
            for drop in row["dropped"]:
                reason, _, count = drop.partition(":")
                self.dropped[reason] += int(count)
