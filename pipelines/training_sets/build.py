"""Rows of the label job, with negatives, to training samples. What cannot be used is counted by reason, never
mended in silence.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ovsops.errors import ConfigError, ShapeError
from ovsops.images.jpeg_header import JPEG_MAGIC
from ovsops.images.png_header import PNG_MAGIC
from ovsops.images.webp_header import is_webp
from ovsops.masks.rle import Rle, rle_from_coco
from ovsops.negatives.sampler import Negatives
from pipelines.training_sets.contract import box_faults, forbidden_character, negatives_faults, text_faults
from pipelines.training_sets.drops import Drops
from pipelines.training_sets.record import Box, Language, RegionNegatives, TrainingRegion, TrainingSample

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_EDGE_TOLERANCE = 1e-3
"""Pixels by which float32 boxes leave an image that they only touch."""


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What becomes a sample."""

    prompt_as_expression: bool = False
    """Regions without a caption are described by the name they were found with."""
    keep_review: bool = False
    """Keep regions whose label waits for a human: many are wrong, or on nothing."""
    keep_without_regions: bool = False
    """Keep images without regions: they train the image's captions alone."""
    keep_turned: bool = False
    """Keep images with an EXIF turn. The published trainer, COCO readers and `datasets` do not apply it alike,
    so that boxes and captions may be of a picture that lies on its side."""
    min_score: float = 0.0
    """Regions below this score are left out."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score is {self.min_score}: give 0 to 1")


def build_sample(
    image: Mapping[str, Any],
    instances: Sequence[Mapping[str, Any]],
    data: bytes | None,
    *,
    categories: Mapping[int, str],
    negatives: Mapping[str, RegionNegatives],
    drops: Drops,
    config: BuildConfig | None = None,
) -> TrainingSample | None:
    """A sample of one row of `images`, its rows of `instances` and its bytes; None where no sample can be
    made, counted in `drops`.

    `negatives` are by `instance_uid`. Captions make the language: Chinese where the short caption holds a Han
    character. Regions are sorted by score, then by uid. The same rows give the same sample in whatever order they come.
    """
    config = config or BuildConfig()
    reason, extension = _image_fault(image, data, config)
    captions = _both_lengths(image.get("caption_short"), image.get("caption_long"))
    if not reason and captions is None:
        reason = "D_NO_CAPTION"
    if reason or captions is None or data is None or extension is None:
        drops.add(reason)
        return None
    drops.add("N_OTHER_LENGTH", int(captions[2]))
    language = language_of(captions[0])
    size_hw = (int(image["height"]), int(image["width"]))
    built = [
        region
        for row in instances
        if (region := _region(row, size_hw, language, categories, negatives, drops, config)) is not None
    ]
    if not built and not config.keep_without_regions:
        drops.add("D_NO_REGION")
        return None
    sha256 = image.get("sha256") or hashlib.sha256(data).hexdigest()
    return TrainingSample(
        image_uid=_UNSAFE.sub("_", image["image_uid"]),
        key=_printable(image["key"]) or "",
        data=data,
        extension=extension,
        sha256=sha256,
        width=size_hw[1],
        height=size_hw[0],
        exif_orientation=int(image.get("exif_orientation") or 1),
        language=language,
        caption_short=captions[0],
        caption_long=captions[1],
        license=_printable(image.get("license")),
        source_url=_printable(image.get("source_url")),
        group=sha256,
        regions=tuple(sorted(built, key=lambda region: (-region.score, region.region_uid))),
    )


def region_negatives(found: Negatives, scores: tuple[float, ...] | None = None) -> RegionNegatives:
    """Negatives of the rules (`ovsops.negatives`), with the region's cosine with each where it was measured."""
    return RegionNegatives(texts=found.negatives, types=found.types, positive=found.positive, scores=scores)


def language_of(text: str) -> Language:
    """`zh` for a text with a Han character, else `en`."""
    return "zh" if _HAN.search(text) else "en"


def normalised_box(bbox_xywh: Sequence[float], size_hw: tuple[int, int]) -> Box | None:
    """Shares of width and height, as float32 numbers, of a COCO box in pixels; None where it leaves the image
    or has no area.
    """
    x, y, w, h = (float(value) for value in bbox_xywh)
    height, width = size_hw
    if not all(map(math.isfinite, (x, y, w, h))):
        return None
    if min(x, y) < -_EDGE_TOLERANCE or x + w > width + _EDGE_TOLERANCE or y + h > height + _EDGE_TOLERANCE:
        return None
    shares = np.asarray([x / width, y / height, (x + w) / width, (y + h) / height])
    x1, y1, x2, y2 = np.clip(shares, 0, 1).astype(np.float32).tolist()
    return (x1, y1, x2, y2) if not list(box_faults((x1, y1, x2, y2), "box")) else None


def image_extension(data: bytes) -> Literal["jpg", "png", "webp"] | None:
    """By the magic bytes."""
    if data.startswith(JPEG_MAGIC):
        return "jpg"
    if data.startswith(PNG_MAGIC):
        return "png"
    return "webp" if is_webp(memoryview(data)) else None


def _image_fault(
    image: Mapping[str, Any], data: bytes | None, config: BuildConfig
) -> tuple[str, Literal["jpg", "png", "webp"] | None]:
    if image["status"] != "labelled":
        return "D_NOT_LABELLED", None
    extension = image_extension(data or b"")
    if extension is None or not image.get("width") or not image.get("height"):
        return "D_NO_BYTES", None
    if (image.get("exif_orientation") or 1) != 1 and not config.keep_turned:
        return "D_EXIF_TURNED", None
    return "", extension


def _both_lengths(short: object, long: object) -> tuple[str, str, bool] | None:
    """Short and long text, and whether one stands for the other, which is missing; None without any."""
    first, second = usable_text(short), usable_text(long)
    if first is None:
        return (second, second, True) if second is not None else None
    return (first, second, False) if second is not None else (first, first, True)


def usable_text(text: object) -> str | None:
    """Lower case, one line, single spaces; None for what is empty or no text."""
    if not isinstance(text, str):
        return None
    lowered = " ".join(text.lower().split())
    return None if list(text_faults(lowered, "text")) else lowered


def _region(
    row: Mapping[str, Any],
    size_hw: tuple[int, int],
    language: Language,
    categories: Mapping[int, str],
    negatives: Mapping[str, RegionNegatives],
    drops: Drops,
    config: BuildConfig,
) -> TrainingRegion | None:
    score = row.get("score_calibrated")
    score = min(max(float(row["score"] if score is None else score), 0.0), 1.0)
    box = normalised_box(row["bbox"], size_hw)
    prompt = row.get("prompt") if config.prompt_as_expression else None
    texts = _both_lengths(row.get("caption_short") or prompt, row.get("caption_long"))
    fault = _region_fault(row, score, box, texts, language, categories, config)
    if fault or box is None or texts is None:
        drops.add(fault)
        return None
    drops.add("N_OTHER_LENGTH", int(texts[2]))
    found = _negatives(texts[0], negatives.get(row["instance_uid"]), drops)
    return TrainingRegion(
        region_uid=row["instance_uid"],
        box=box,
        score=score,
        category_id=row["category_id"],
        category=categories[row["category_id"]],
        short_expr=found.positive if found is not None else texts[0],
        long_expr=texts[1],
        negatives=found,
        segmentation=_mask(row.get("segmentation"), size_hw),
    )


def _region_fault(
    row: Mapping[str, Any],
    score: float,
    box: Box | None,
    texts: tuple[str, str, bool] | None,
    language: Language,
    categories: Mapping[int, str],
    config: BuildConfig,
) -> str:
    """The first reason against a region, "" without one."""
    if row["category_id"] not in categories:
        return "D_REGION_UNKNOWN_CLASS"
    if row.get("iscrowd"):
        return "D_REGION_CROWD"
    if row.get("decision") == "review" and not config.keep_review:
        return "D_REGION_REVIEW"
    if box is None:
        return "D_REGION_BOX"
    if not score >= config.min_score:
        return "D_REGION_SCORE"
    if texts is None:
        return "D_REGION_TEXT"
    return "D_REGION_LANGUAGE" if language_of(texts[0]) != language else ""


def _negatives(expression: str, given: RegionNegatives | None, drops: Drops) -> RegionNegatives | None:
    """Negatives and their positive in lower case; None, counted, where they are not ten different ones any more."""
    if given is None:
        return None
    texts = tuple(" ".join(text.lower().split()) for text in given.texts)
    positive = usable_text(given.positive or expression)
    columns = [column for column in (given.types, given.scores, given.sources) if column is not None]
    if (
        positive is None
        or list(negatives_faults(positive, texts, "negatives"))
        or any(language_of(text) != language_of(positive) for text in texts)
        or any(len(column) != len(texts) for column in columns)
    ):
        drops.add("D_NEGATIVES")
        return None
    return replace(given, texts=texts, positive=positive)


def _mask(segmentation: Mapping[str, Any] | None, size_hw: tuple[int, int]) -> Rle | None:
    """The mask; ShapeError for one that the label job cannot have written."""
    if segmentation is None:
        return None
    rle = rle_from_coco(segmentation)
    if rle.size_hw != size_hw:
        raise ShapeError(
            f"a mask of {rle.size_hw} in an image of {size_hw} (h w): the tables do not belong together"
        )
    return rle


def _printable(text: str | None) -> str | None:
    """A name without characters that break lines or reorder text."""
    if text is None:
        return None
    return "".join(c if forbidden_character(c) is None else "\N{REPLACEMENT CHARACTER}" for c in text)
