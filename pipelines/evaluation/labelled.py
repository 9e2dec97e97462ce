"""A labelled run read back image by image: its row, and the class of every pixel. Axes: h w pixels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from ovsops.errors import OutputError, ShapeError
from ovsops.masks.rle import rle_from_coco, rle_to_mask
from pipelines.export import committed_rows
from pipelines.ledger import Ledger
from pipelines.storage import Storage

UNLABELLED = 0
"""Id of pixels that no region covers."""

_IMAGE_COLUMNS = [
    "image_uid",
    "shard",
    "index",
    "key",
    "sha256",
    "width",
    "height",
    "sidecar",
    "presence",
    "verified_absent",
    "status",
    "error_code",
    "error_message",
]
_REGION_COLUMNS = [
    "image_uid",
    "instance_uid",
    "category_id",
    "segmentation",
    "bbox",
    "bbox_detector",
    "area",
    "score",
    "score_calibrated",
    "detector",
]


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """One row of `images` with its rows of `instances`."""

    image_uid: str
    shard: str
    """Name of the shard, below its input folder."""
    index: int
    """Place in the shard."""
    key: str
    sha256: str | None
    size_hw: tuple[int, int] | None
    """None for rows that failed before they were decoded."""
    sidecar: str | None
    """The JSON beside the image, as it came."""
    status: str
    """labelled, skipped or failed."""
    error: str
    """Code and message of a row that is not labelled."""
    regions: tuple[Mapping[str, Any], ...]
    presence: Mapping[int, float] = field(default_factory=dict)
    """By category id, where a presence gate has looked."""
    verified_absent: tuple[int, ...] = ()
    """Category ids."""

    @property
    def where(self) -> str:
        """Shard and key, for messages."""
        return f"{self.shard} {self.key}"

    @property
    def identity(self) -> tuple[str, str, str | None]:
        """What makes it the same image in two runs."""
        return self.shard, self.key, self.sha256


def labelled_images(storage: Storage) -> Iterator[LabelledImage]:
    """Every image of the committed shards, by shard name and key, in the memory of a batch of rows.

    Raises `OutputError` where the tables cannot be trusted: not published, changed after the run, or regions that
    belong to no image.
    """
    for commit in Ledger(storage).read_all():
        rows = committed_rows(storage, commit, "instances", _REGION_COLUMNS)
        groups = groupby(rows, key=itemgetter("image_uid"))
        pending = next(groups, None)
        for row in committed_rows(storage, commit, "images", _IMAGE_COLUMNS):
            regions: tuple[Mapping[str, Any], ...] = ()
            if pending is not None and pending[0] == row["image_uid"]:
                regions = tuple(pending[1])
                pending = next(groups, None)
            yield _image(row, regions)
        if pending is not None:
            raise OutputError(
                f"shard {commit.name}: regions of image {pending[0]} do not follow the rows of"
                f" images/{commit.shard}.parquet; the tables were changed: label the shard again"
            )


def _image(row: Mapping[str, Any], regions: tuple[Mapping[str, Any], ...]) -> LabelledImage:
    is_decoded = row["width"] is not None and row["height"] is not None
    return LabelledImage(
        image_uid=row["image_uid"],
        shard=row["shard"],
        index=row["index"],
        key=row["key"],
        sha256=row["sha256"],
        size_hw=(row["height"], row["width"]) if is_decoded else None,
        sidecar=row["sidecar"],
        status=row["status"],
        error=f"{row['error_code']}: {row['error_message']}" if row["error_code"] else "",
        regions=regions,
        presence={each["category_id"]: each["score"] for each in row["presence"]},
        verified_absent=tuple(row["verified_absent"]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PaintedMap:
    """Regions as one map."""

    labels: Int32[np.ndarray, "h w"]
    """Category id of every pixel, 0 where no region is."""
    num_contested: int
    """Pixels that more than one region covers."""


def paint(image: LabelledImage, size_hw: tuple[int, int]) -> PaintedMap:
    """Regions of an image as one map; all 0 for a row that has no labels.

    Instances of a detector may overlap: the one of better score is on top, of equal ones the smaller. Raises
    `OutputError` for regions of another size, and for an overlap where no detector was at work: a segmenter's regions
    are cut from a map.
    """
    labels = np.full(size_hw, UNLABELLED, np.int32)
    contested = np.zeros(size_hw, np.bool_)
    may_overlap = any(region.get("detector") for region in image.regions)
    if may_overlap:
        best_last = sorted(image.regions, key=lambda region: (region["score"], -region["area"]))
        image = replace(image, regions=tuple(best_last))
    for region, mask in zip(image.regions, region_masks(image, size_hw), strict=True):
        covered = mask & (labels != UNLABELLED)
        if not may_overlap and covered.any():
            raise OutputError(
                f"{image.where}: region {region['instance_uid']} overlaps another one: no detector found it, and"
                " regions of a segmenter's map cannot overlap; label the shard again"
            )
        contested |= covered
        labels[mask] = region["category_id"]
    return PaintedMap(labels=labels, num_contested=int(contested.sum()))


def score_of(image: LabelledImage, region: Mapping[str, Any], column: str = "score") -> float:
    """A score of a region. Raises `ShapeError` for one outside [0, 1]."""
    score = float(region[column])
    if not 0 <= score <= 1:
        raise ShapeError(
            f"{image.where}: region {region['instance_uid']} has the score {score}; expected 0 to 1"
        )
    return score


def region_masks(image: LabelledImage, size_hw: tuple[int, int]) -> Iterator[Bool[np.ndarray, "h w"]]:
    """The mask of each region. Raises `OutputError` for one that is not of the image's size."""
    for region in image.regions:
        where = f"{image.where}: region {region['instance_uid']}"
        try:
            mask = rle_to_mask(rle_from_coco(region["segmentation"]))
        except ShapeError as error:
            raise OutputError(f"{where}: {error}; label the shard again") from error
        if mask.shape != size_hw:
            raise OutputError(
                f"{where} is {mask.shape[0]}x{mask.shape[1]} pixels (h x w), its image {size_hw[0]}x{size_hw[1]};"
                " label the shard again"
            )
        yield mask
