"""Labelled regions as the negatives job takes them: a text of each, what the rules make of it, what else is said of it.

Who asks a language model and who writes the table see the same, so that both speak of the same questions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ovsops.negatives.candidates import RegionContext, same_place
from ovsops.negatives.sampler import Negatives, NegativeSampler, Refusal
from pipelines.labelled_shards import read_committed
from pipelines.storage import Storage

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
    "decision",
)


@dataclass(frozen=True, kw_only=True)
class DrawnRegions:
    """Regions of some whole images, and what the rules say of each."""

    uids: Sequence[str]
    texts: Sequence[str | None]
    drawn: Sequence[Negatives | Refusal]
    contexts: Sequence[RegionContext]


@dataclass(frozen=True, kw_only=True)
class RegionSource:
    """How regions of a label run become drawn ones. Travels to the workers."""

    categories: Mapping[int, str]
    sampler: NegativeSampler
    texts: tuple[TextColumn, ...]
    """Columns of a region; the first that holds a text is its positive."""
    count: int
    """Candidates by rule of each region at most."""
    review: bool
    """Whether regions that wait for a person take part."""

    def read(self, storage: Storage, table: Mapping[str, Any]) -> pa.Table:
        """The committed regions of a shard. RowError where they are others than were committed."""
        return read_committed(storage, table, _COLUMNS)

    def draw(self, regions: Sequence[Mapping[str, Any]], *, with_contexts: bool) -> DrawnRegions:
        """What the rules say of regions; without contexts where nobody asks for them."""
        uids = [region["instance_uid"] for region in regions]
        texts = [text_of(region, self.texts) for region in regions]
        drawn = [
            self.sampler.candidates_for(text, key=uid, count=self.count)
            if is_wanted(region, review=self.review)
            else Refusal(reason="R_REVIEW")
            for region, uid, text in zip(regions, uids, texts, strict=True)
        ]
        contexts = (
            region_contexts(regions, self.categories) if with_contexts else [RegionContext()] * len(regions)
        )
        return DrawnRegions(uids=uids, texts=texts, drawn=drawn, contexts=contexts)


def is_wanted(region: Mapping[str, Any], *, review: bool) -> bool:
    """Whether a region's caption may be believed as far as the label run knows; with `review` all are."""
    return review or region["decision"] != "review"


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


def whole_images(regions: pa.Table) -> Iterator[list[dict[str, Any]]]:
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
