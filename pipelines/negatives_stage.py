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
    Validated,
    choose_ten,
    same_place,
    validate_all,
)
from ovsops.negatives.config import NUM_NEGATIVES
from ovsops.negatives.sampler import Negatives, NegativeSampler, Refusal
from pipelines.endpoint_config import EndpointError
from pipelines.labelled_shards import SourceShard, read_committed
from pipelines.negatives_checks import Checks, ValidatorFactory
from pipelines.negatives_llm import LlmDraw, LlmTally, LlmWriter, candidates_of, choose_written
from pipelines.parts import seal_table
from pipelines.readers import ReaderConfig
from pipelines.schemas import NEGATIVES, WRITTEN_NEGATIVES
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
        llm: LlmDraw | None = None,
    ) -> None:
        super().__init__(output, options, run)
        self.labels, self.categories, self.sampler, self.texts = labels, categories, sampler, texts
        self.factory, self.reader, self.llm = validators, reader, llm
        self.count = NUM_NEGATIVES + (spare if validators is not None else 0)

    def setup(self) -> None:
        """Open both outputs, build the validators."""
        super().setup()
        self.label_storage = open_storage(self.labels, self.options)
        self.checks = Checks(validators=()) if self.factory is None else self.factory.build()
        self.writer = None if self.llm is None else LlmWriter(self.llm, self.sampler.config)

    def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
        """Negatives of one shard."""
        tables = task["tables"]
        images = read_committed(self.label_storage, tables["images"], ["image_uid", "key", "index"])
        keys = dict(zip(images["image_uid"].to_pylist(), images["key"].to_pylist(), strict=True))
        regions = read_committed(self.label_storage, tables["instances"], _COLUMNS)
        features = self._features(task, images, regions)
        schema = NEGATIVES if self.writer is None else WRITTEN_NEGATIVES
        parts: list[pa.Table] = [schema.empty_table()]
        counts, tally = _Counts(), LlmTally()
        for some in _whole_images(regions):
            rows = [row | {"key": keys[row["image_uid"]]} for row in self._rows(some, features, tally)]
            counts.add(rows)
            parts.append(pa.Table.from_pylist(rows, schema=schema))
        table = pa.concat_tables(parts)
        written = {} if self.writer is None else {"sources": counts.sources, "llm": tally.to_plain()}
        return SealedUnit(
            tables={"negatives": seal_table(self.storage, "negatives", shard, table, self.run)},
            read=table.num_rows,
            kept=counts.kept,
            left_out=counts.reasons,
            counts={
                "languages": counts.languages,
                "types": counts.types,
                "dropped": counts.dropped,
                **written,
            },
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
        self, regions: Sequence[Mapping[str, Any]], features: Mapping[str, np.ndarray], tally: LlmTally
    ) -> list[dict[str, Any]]:
        """Rows of the table, without `key`, of the regions of some whole images."""
        uids = [region["instance_uid"] for region in regions]
        texts = [text_of(region, self.texts) for region in regions]
        drawn = [
            self.sampler.candidates_for(text, key=uid, count=self.count)
            for uid, text in zip(uids, texts, strict=True)
        ]
        contexts = self._contexts(regions, features)
        written = {} if self.writer is None else self.writer.write(uids, texts, drawn, contexts, tally)
        candidates = {
            i: found
            for i, (uid, answer) in enumerate(zip(uids, drawn, strict=True))
            if (found := candidates_of(uid, answer, written.get(i), self.llm)) is not None
        }
        validated = dict(
            zip(
                candidates,
                validate_all(
                    self.checks.validators, list(candidates.values()), [contexts[i] for i in candidates]
                ),
                strict=True,
            )
        )
        return [
            {
                "instance_uid": region["instance_uid"],
                "image_uid": region["image_uid"],
                "category_id": region["category_id"],
                "level": self.sampler.config.level,
                "positive": texts[i],
                "dropped": [],
                **self._chosen(drawn[i], validated.get(i), written.get(i), tally),
            }
            for i, region in enumerate(regions)
        ]

    def _contexts(
        self, regions: Sequence[Mapping[str, Any]], features: Mapping[str, np.ndarray]
    ) -> list[RegionContext]:
        if not self.checks.validators and self.writer is None:
            return [RegionContext()] * len(regions)
        contexts = region_contexts(regions, self.categories)
        return [
            replace(context, feature=features.get(region["instance_uid"]))
            for context, region in zip(contexts, regions, strict=True)
        ]

    def _chosen(
        self,
        answer: Negatives | Refusal,
        found: Validated | None,
        written: CandidateNegatives | EndpointError | None,
        tally: LlmTally,
    ) -> dict[str, Any]:
        """Ten, or the reason why they are not ten; what was dropped on the way is said in any case."""
        if found is None:
            if written is not None:
                tally.outcomes["none"] += 1
            if isinstance(written, EndpointError) and self.llm is not None and self.llm.otherwise == "none":
                return {"reason": written.code}
            if not isinstance(answer, Refusal):
                raise AssertionError("negatives by rule were written, and nobody looked at them")
            return {"reason": answer.reason}
        dropped = Counter(reason for reason in found.reasons if reason is not None)
        row: dict[str, Any] = {
            "positive": found.kept.positive,
            "language": found.kept.language,
            "dropped": [f"{reason}:{count}" for reason, count in sorted(dropped.items())],
        }
        if written is None or self.llm is None:
            ten, reason = choose_ten(found.kept), TOO_FEW
        else:
            ten, reason = choose_written(found.kept, answer, self.llm, self.sampler)
            tally.settle(ten, found, written)
        if ten is None:
            return row | {"reason": reason}
        row |= {"negatives": list(ten.texts), "types": list(ten.types)}
        return row if self.llm is None else row | {"sources": list(ten.sources)}


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
        self.sources: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            if row.get("negatives") is None:
                self.reasons[row["reason"]] += 1
            else:
                self.kept += 1
                self.languages[row["language"]] += 1
                self.types.update(row["types"])
                self.sources.update(row.get("sources", ()))
            for drop in row["dropped"]:
                reason, _, count = drop.partition(":")
                self.dropped[reason] += int(count)
