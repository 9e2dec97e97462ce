"""Labelled regions in, their negatives out: candidates, what validators say of them, ten or a reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ovsops.errors import RowError
from ovsops.negatives.candidates import (
    TOO_FEW,
    CandidateNegatives,
    Validated,
    choose_ten,
    validate_all,
)
from ovsops.negatives.sampler import Negatives, Refusal
from pipelines.labelled_shards import SourceShard, read_committed
from pipelines.llm_writers import LlmWriter, StoredReplies, Writer
from pipelines.negatives_checks import Checks, ValidatorFactory
from pipelines.negatives_llm import LlmDraw, LlmTally, candidates_of, choose_written
from pipelines.negatives_regions import RegionSource, whole_images
from pipelines.parts import seal_table
from pipelines.readers import ReaderConfig
from pipelines.schemas import NEGATIVES, WRITTEN_NEGATIVES
from pipelines.storage import StorageOptions, open_storage
from pipelines.units import SealedUnit, UnitStage


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
        regions: RegionSource,
        validators: ValidatorFactory | None,
        reader: ReaderConfig,
        llm: LlmDraw | None = None,
    ) -> None:
        super().__init__(output, options, run)
        self.labels, self.regions = labels, regions
        self.factory, self.reader, self.llm = validators, reader, llm

    def setup(self) -> None:
        """Open both outputs, build the validators."""
        super().setup()
        self.label_storage = open_storage(self.labels, self.options)
        self.checks = Checks(validators=()) if self.factory is None else self.factory.build()
        self.asker = None
        if self.llm is not None and self.llm.endpoint is not None:
            self.asker = LlmWriter(self.llm, self.llm.endpoint, self.regions.sampler.config)

    def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
        """Negatives of one shard."""
        tables = task["tables"]
        images = read_committed(self.label_storage, tables["images"], ["image_uid", "key", "index"])
        keys = dict(zip(images["image_uid"].to_pylist(), images["key"].to_pylist(), strict=True))
        regions = self.regions.read(self.label_storage, tables["instances"])
        features = self._features(task, images, regions)
        writer = self._writer(shard)
        schema = NEGATIVES if writer is None else WRITTEN_NEGATIVES
        parts: list[pa.Table] = [schema.empty_table()]
        counts, tally = _Counts(), LlmTally()
        for some in whole_images(regions):
            made = self._rows(some, features, writer, tally)
            rows = [row | {"key": keys[row["image_uid"]]} for row in made]
            counts.add(rows)
            parts.append(pa.Table.from_pylist(rows, schema=schema))
        table = pa.concat_tables(parts)
        written = {} if writer is None else {"sources": counts.sources, "llm": tally.to_plain()}
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

    def _writer(self, shard: str) -> Writer | None:
        """Who else writes negatives of this shard: one that asks now, or one that reads what was asked before."""
        if self.llm is None or self.asker is not None:
            return self.asker
        return StoredReplies(self.storage, shard, self.llm, self.regions.sampler.config)

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
        self,
        regions: Sequence[Mapping[str, Any]],
        features: Mapping[str, np.ndarray],
        writer: Writer | None,
        tally: LlmTally,
    ) -> list[dict[str, Any]]:
        """Rows of the table, without `key`, of the regions of some whole images."""
        is_told = bool(self.checks.validators) or writer is not None
        those = self.regions.draw(regions, with_contexts=is_told)
        uids, texts, drawn = those.uids, those.texts, those.drawn
        contexts = [
            replace(context, feature=features.get(uid))
            for context, uid in zip(those.contexts, uids, strict=True)
        ]
        written = {} if writer is None else writer.write(those, tally)
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
                "level": self.regions.sampler.config.level,
                "positive": texts[i],
                "dropped": [],
                **self._chosen(drawn[i], validated.get(i), written.get(i), tally),
            }
            for i, region in enumerate(regions)
        ]

    def _chosen(
        self,
        answer: Negatives | Refusal,
        found: Validated | None,
        written: CandidateNegatives | RowError | None,
        tally: LlmTally,
    ) -> dict[str, Any]:
        """Ten, or the reason why they are not ten; what was dropped on the way is said in any case."""
        if found is None:
            if written is not None:
                tally.outcomes["none"] += 1
            if isinstance(written, RowError) and self.llm is not None and self.llm.otherwise == "none":
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
            ten, reason = choose_written(found.kept, answer, self.llm, self.regions.sampler)
            tally.settle(ten, found, written)
        if ten is None:
            return row | {"reason": reason}
        row |= {"negatives": list(ten.texts), "types": list(ten.types)}
        return row if self.llm is None else row | {"sources": list(ten.sources)}


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
