"""Samples for tests of training sets: tiny real images, regions with masks, ten negatives."""

import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image

from ovsops.masks.rle import mask_to_rle
from pipelines.training_sets.record import RegionNegatives, TrainingRegion, TrainingSample

COLOURS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "purple", "orange", "yellow")
CATEGORIES = [{"id": 3, "name": "cup", "supercategory": "", "isthing": 1}]


def image_bytes(number: int, kind: str = "PNG", *, size_wh: tuple[int, int] = (16, 8)) -> bytes:
    """A whole small image; different numbers give different bytes."""
    pixels = np.random.default_rng(number).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def make_negatives(colour: str = "red") -> RegionNegatives:
    """Ten other colours."""
    others = [name for name in COLOURS if name != colour]
    return RegionNegatives(
        texts=tuple(f"a {name} cup" for name in others), types=("colour",) * 10, scores=(0.25,) * 10
    )


def make_region(number: int, *, with_negatives: bool = True, **changes: Any) -> TrainingRegion:
    """A cup in the left half of a 16x8 image."""
    mask = np.zeros((8, 16), bool)
    mask[2:6, 4:8] = True
    fields: dict[str, Any] = {
        "region_uid": f"r{number}",
        "box": (0.25, 0.25, 0.5, 0.75),
        "score": 0.9,
        "category_id": 3,
        "category": "cup",
        "short_expr": "a red cup",
        "long_expr": "a red cup on a table",
        "negatives": make_negatives() if with_negatives else None,
        "segmentation": mask_to_rle(mask),
    }
    return TrainingRegion(**fields | changes)


def make_sample(number: int, **changes: Any) -> TrainingSample:
    """Image `number`: two regions, one with negatives."""
    data = changes.pop("data", image_bytes(number))
    sha256 = hashlib.sha256(data).hexdigest()
    fields: dict[str, Any] = {
        "image_uid": f"img-{number:04d}",
        "key": f"folder/{number}.png",
        "data": data,
        "extension": "png",
        "sha256": sha256,
        "width": 16,
        "height": 8,
        "language": "en",
        "caption_short": "a cup on a table",
        "caption_long": "a red cup stands on a wooden table, beside a window",
        "license": "cc0" if number % 2 else None,
        "source_url": "https://example.org/1.png",
        "group": sha256,
        "regions": (
            make_region(10 * number),
            make_region(10 * number + 1, score=0.5, with_negatives=False, segmentation=None),
        ),
    }
    return TrainingSample(**fields | changes)


def chinese_sample(number: int, **changes: Any) -> TrainingSample:
    """The same in Chinese."""
    colours = "绿蓝黑白灰粉棕紫橙黄"
    negatives = RegionNegatives(texts=tuple(f"一个{c}色的杯子" for c in colours), types=("colour",) * 10)
    region = make_region(
        10 * number, short_expr="一个红色的杯子", long_expr="桌上一个红色的杯子", negatives=negatives
    )
    return make_sample(
        number,
        language="zh",
        caption_short="桌上有杯子",
        caption_long="一个红色的杯子在木桌上",
        regions=(region,),
        **changes,
    )
