"""What a format is: one small protocol, and the one record that every format is handed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool

from ovsops.errors import OutputError, ShapeError
from ovsops.masks.rle import Rle, rle_from_coco, rle_to_mask
from pipelines.redact import redact
from pipelines.writers.coco import shortest

FormatName = Literal["coco", "yolo-seg", "labelstudio", "cvat", "fiftyone", "webdataset", "hf"]
FORMATS: tuple[FormatName, ...] = (
    "coco",
    "yolo-seg",
    "labelstudio",
    "cvat",
    "fiftyone",
    "webdataset",
    "hf",
)
Images = Literal["copy", "reference"]

IMAGE_COLUMNS = [
    "image_uid",
    "shard",
    "index",
    "key",
    "sha256",
    "width",
    "height",
    "exif_orientation",
    "license",
    "source_url",
    "caption_short",
    "caption_long",
    "verified_absent",
    "sidecar",
    "status",
]
REGION_COLUMNS = [
    "instance_uid",
    "image_uid",
    "category_id",
    "prompt",
    "language",
    "bbox",
    "segmentation",
    "area",
    "iscrowd",
    "score",
    "score_calibrated",
    "caption_short",
    "caption_long",
    "caption_source",
    "verdict",
    "decision",
    "reason_codes",
]
"""What leaves. Evidence, rivals, the detector's own box and the parts of a score stay in the run."""

ATTRIBUTION = ("attribution", "author", "artist", "creator", "credit", "copyright", "license_url", "title")
"""Fields of a sidecar that say whose picture it is."""

_TEXTS = (
    "prompt",
    "language",
    "caption_short",
    "caption_long",
    "caption_source",
    "verdict",
    "decision",
    "reason_codes",
)


@dataclass(frozen=True, kw_only=True)
class ExportImage:
    """One labelled image with its regions."""

    number: int
    """Place in the export, from 1."""
    shard: str
    """Id of its shard: letters, digits, `-` and `_`."""
    row: Mapping[str, Any]
    """Of the table `images`, `IMAGE_COLUMNS`."""
    file_name: str
    """Where its bytes lie: below `images/` where they are copied, else below the run's input."""
    data: bytes | None
    """The bytes as they came; None where images are not copied."""
    regions: tuple[Mapping[str, Any], ...]
    """Of the table `instances`, `REGION_COLUMNS`."""

    @property
    def extension(self) -> str:
        """Of the file: `jpg`, `png` or `webp` where it is copied."""
        return self.file_name.rpartition(".")[2]

    @property
    def uid(self) -> str:
        """Unique in the run, hexadecimal."""
        return str(self.row["image_uid"])


class ExportFormat(Protocol):
    """Files of one format below one folder, while images come one by one.

    A format holds one image at a time. What it cannot hold, it counts in the report.
    """

    def begin_shard(self, shard: str) -> None:
        """Images of this shard follow."""

    def add(self, image: ExportImage) -> None:
        """Append an image and its regions."""

    def finish(self) -> None:
        """Write what the format has at its end."""

    def close(self) -> None:
        """Let go of open files, finished or not."""


def region_rle(image: ExportImage, region: Mapping[str, Any]) -> Rle:
    """The region's mask as RLE. OutputError for one that is no mask of its image's size."""
    where = f"{image.row['shard']} {image.row['key']}: region {region['instance_uid']}"
    try:
        rle = rle_from_coco(region["segmentation"])
    except ShapeError as error:
        raise OutputError(f"{where}: {error}; label the shard again") from error
    if rle.size_hw != (image.row["height"], image.row["width"]):
        raise OutputError(
            f"{where} is {rle.size_hw[0]}x{rle.size_hw[1]} pixels (h x w), its image"
            f" {image.row['height']}x{image.row['width']}; label the shard again"
        )
    return rle


def region_mask(image: ExportImage, region: Mapping[str, Any]) -> Bool[np.ndarray, "h w"]:
    """The region's mask."""
    return rle_to_mask(region_rle(image, region))


def region_texts(region: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a region beside box, mask and score: the fields that are not empty."""
    fields = {name: region[name] for name in _TEXTS if region[name]}
    if region["score_calibrated"] is not None:
        fields["score_calibrated"] = shortest(region["score_calibrated"])
    return fields


def image_texts(image: ExportImage) -> dict[str, Any]:
    """What is said of an image beside its size: names, licence, attribution, captions; what is not empty."""
    row = image.row
    given = {
        "image_uid": row["image_uid"],
        "shard": row["shard"],
        "key": row["key"],
        "sha256": row["sha256"],
        "license": row["license"],
        "source_url": row["source_url"],
        "attribution": attribution(row["sidecar"]),
        "caption_short": row["caption_short"],
        "caption_long": row["caption_long"],
        "verified_absent": row["verified_absent"],
    }
    return {name: value for name, value in given.items() if value}


def attribution(sidecar: str | None) -> dict[str, str]:
    """Who is to be named, by the fields of the JSON that came with the image (`ATTRIBUTION`)."""
    fields = json.loads(sidecar) if sidecar else {}
    return {
        name: redact(fields[name])
        for name in ATTRIBUTION
        if isinstance(fields.get(name), str) and fields[name]
    }
